"""What `test_spark_on_s3` looks at, in a process with a Spark session of its own: ``spark_on_s3.py s3://bucket``."""

import datetime as dt
import json
import sys
import threading

import deltalake
import pyarrow as pa
from py4j.protocol import Py4JJavaError

from infra.settings import Settings
from pipelines.delta_tables import read_table, write_partition
from pipelines.spark import spark_session
from schemas.run_identity import RunIdentity
from schemas.tables import TABLES

COMMITS, DAY = 12, dt.date(2026, 1, 31)


def two_writers(spark, uri):
    """Spark and delta-rs append to one table at once; ids that are there twice, and that are missing."""
    deltalake.write_deltalake(uri, pa.table({"writer": ["first"], "number": [0]}))

    def by_rust():
        for number in range(COMMITS):
            deltalake.write_deltalake(uri, pa.table({"writer": ["rust"], "number": [number]}), mode="append")

    def by_spark():
        for number in range(COMMITS):
            frame = spark.createDataFrame([("spark", number)], "writer string, number long")
            frame.write.format("delta").mode("append").save(uri)

    threads = [threading.Thread(target=work) for work in (by_rust, by_spark)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [(row.writer, row.number) for row in spark.read.format("delta").load(uri).collect()]
    wanted = {("first", 0), *((writer, n) for writer in ("rust", "spark") for n in range(COMMITS))}
    lost = sorted(map(str, wanted - set(found)))
    newest = deltalake.DeltaTable(uri).version()
    return {"lost": lost, "doubled": len(found) - len(set(found)), "versions": newest}


def one_commit(spark, folder):
    """The log store writes a commit once; a repetition of the same content, as after a lost answer, is no conflict."""
    jvm, configuration = spark.sparkContext._jvm, spark.sparkContext._jsc.hadoopConfiguration()
    store = jvm.penchant.ConditionalLogStore(configuration)
    path = jvm.org.apache.hadoop.fs.Path(f"{folder}/_delta_log/00000000000000000000.json")

    def write(text, overwrite=False):
        lines = jvm.java.util.ArrayList()
        lines.add(text)
        try:
            store.write(path, lines.iterator(), overwrite, configuration)
        except Py4JJavaError as error:
            return error.java_exception.getClass().getName()
        return "written"

    def read():
        return list(store.read(path, configuration))

    said = [write("one"), write("one"), write("two"), read()]
    return [*said, write("three", True), read()]


def two_streams(spark, folder):
    """Two writers have the same commit open at once: who closes first wins."""
    jvm, configuration = spark.sparkContext._jvm, spark.sparkContext._jsc.hadoopConfiguration()
    path = jvm.org.apache.hadoop.fs.Path(f"{folder}/_delta_log/00000000000000000001.json")
    files = path.getFileSystem(configuration)
    key = "fs.option.create.conditional.overwrite"
    streams = [files.createFile(path).overwrite(True).recursive().must(key, True).build() for _ in range(2)]
    for number, stream in enumerate(streams):
        stream.write(bytearray(str(number).encode()))
    said = []
    for stream in reversed(streams):
        try:
            stream.close()
            said.append("written")
        except Py4JJavaError as error:
            said.append(error.java_exception.getClass().getName())
    return [*said, files.open(path).read() - ord("0")]


def our_tables(spark, settings):
    """Versions and rows of one of our tables after a first write, the same again, and a changed row."""
    table, identity = TABLES["item_descriptions"], RunIdentity(dag="d", partition=str(DAY), recipe="", config_hash="c")
    uri, row, said = settings.table_uri("shop", table.name), {f.name: _value(f) for f in table.arrow_schema()}, []
    free = next(n for n, value in row.items() if isinstance(value, str) and n not in table.key)
    for changed in ({}, {}, {free: "changed"}):
        frame = spark.createDataFrame(pa.Table.from_pylist([{**row, **changed}], schema=table.arrow_schema()))
        handoff = write_partition(spark, frame, table, uri, {"partition_date": DAY}, identity)
        said.append((handoff.version, read_table(spark, uri).count()))
    return said


def _value(field):
    if pa.types.is_date(field.type):
        return DAY
    if pa.types.is_timestamp(field.type):
        return dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
    if pa.types.is_string(field.type):
        return "x"
    if pa.types.is_boolean(field.type):
        return True
    if pa.types.is_floating(field.type):
        return 0.5
    if pa.types.is_list(field.type):
        return []
    return 1


def main(bucket: str) -> None:
    settings = Settings(state=f"{bucket}/state", warehouse=f"{bucket}/warehouse")
    spark = spark_session("on s3", settings, lambda: 0)
    found = {
        "two_writers": two_writers(spark, f"{bucket}/both"),
        "one_commit": one_commit(spark, f"{bucket}/one"),
        "two_streams": two_streams(spark, f"{bucket}/two"),
        "our_tables": our_tables(spark, settings),
    }
    sys.stdout.write(f"\nFOUND {json.dumps(found)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
