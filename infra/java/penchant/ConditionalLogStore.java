package penchant;

import io.delta.storage.HadoopFileSystemLogStore;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.RemoteFileChangedException;

/**
 * Writes a commit of a Delta table to S3 only if it does not exist yet, by the store's conditional PUT.
 *
 * <p>The log store that Delta has for S3 looks whether the file exists and then writes it, so two writers can both
 * succeed, and one commit is lost. Here the store decides.
 */
public class ConditionalLogStore extends HadoopFileSystemLogStore {

  public ConditionalLogStore(Configuration configuration) {
    super(configuration);
  }

  @Override
  public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration configuration)
      throws IOException {
    ByteArrayOutputStream content = new ByteArrayOutputStream();
    while (actions.hasNext()) {
      content.write((actions.next() + "\n").getBytes(StandardCharsets.UTF_8));
    }
    FileSystem files = path.getFileSystem(configuration);
    FSDataOutputStreamBuilder<?, ?> builder = files.createFile(path).overwrite(true).recursive();
    if (!overwrite) {
      builder.must("fs.option.create.conditional.overwrite", true);
    }
    try (FSDataOutputStream out = builder.build()) {
      out.write(content.toByteArray());
    } catch (RemoteFileChangedException error) {
      // A repeated request is refused, too, where the answer to the first one was lost. A commit names its transaction,
      // so equal content is ours.
      if (!Arrays.equals(content.toByteArray(), read(files, path))) {
        throw new FileAlreadyExistsException(path.toString());
      }
    }
  }

  private static byte[] read(FileSystem files, Path path) throws IOException {
    try (FSDataInputStream in = files.open(path)) {
      return in.readAllBytes();
    }
  }

  @Override
  public Boolean isPartialWriteVisible(Path path, Configuration configuration) {
    return false;
  }
}
