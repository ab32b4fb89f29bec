import subprocess
import sys

import pytest

from infra.errors import SettingError
from infra.settings import REPOSITORY
from ray_jobs import recommenders, tokenizers
from schemas.recipes import RECOMMENDERS, TOKENIZERS

LOADS = """
import sys
from ray_jobs import recommenders, tokenizers
from schemas.recipes import RECOMMENDERS, TOKENIZERS
for index, package in ((RECOMMENDERS, recommenders), (TOKENIZERS, tokenizers)):
    for name in index:
        package.settings_class(name)()
print(*{module.partition(".")[0] for module in sys.modules} & {"torch", "ray", "numpy", "sklearn", "transformers"})
"""


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_the_index_names_the_settings_of_each_recommender(name):
    assert recommenders.settings_class(name) is recommenders.recipe_class(name).settings_class


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_index_names_the_settings_of_each_tokenizer(name):
    assert tokenizers.settings_class(name) is tokenizers.tokenizer_class(name).settings_class


def test_no_settings_load_an_engine():
    done = subprocess.run([sys.executable, "-c", LOADS], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("package", [recommenders, tokenizers])
def test_an_unknown_recipe_is_refused_with_those_there_are(package):
    with pytest.raises(SettingError, match=r"'nothing'.*(sasrec|rqvae)"):
        package.settings_class("nothing")
