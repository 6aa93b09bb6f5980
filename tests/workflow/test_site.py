"""Site files: what comes with hpcfit is valid and says whether it was tested; every mistake is named."""

import pytest

from hpcfit.errors import InputError
from hpcfit.workflow.jobs.site import load_site, site_names

MINIMAL = 'description = "mine"\nranks_per_node = 4\n'


def written(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", site_names())
def test_the_sites_that_come_with_hpcfit(name):
    site = load_site(name)
    assert site.name == name
    assert bool(site.tested) == name.startswith("generic")
    assert site.tested or all(page.startswith("https://") for page in site.documentation)
    assert site.tested or site.documentation
    assert site.gpus_per_node in (0, site.ranks_per_node)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("cores_per_ranks = 2\n", "unknown key 'cores_per_ranks' = 2: did you mean 'cores_per_rank'?"),
        ("ranks_per_node = 0\n", "'ranks_per_node' = 0"),
        ("modules = 'gcc'\n", "'modules' = 'gcc': input should be a valid list"),
        ("[environment]\nX = 1\n", "'environment.X' = 1: input should be a valid string"),
        ("gpu_bind = 'none'\n", "gpu_bind = 'none' has no effect without gpus_per_node"),
    ],
)
def test_mistakes_are_named(tmp_path, extra, message):
    text = MINIMAL.replace("ranks_per_node = 4\n", "") + extra if extra.startswith("ranks") else MINIMAL + extra
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_site(path)
    assert message in str(caught.value)
    assert f"site file {path}" in str(caught.value)
    assert "remedy:" in str(caught.value)


def test_a_missing_key_a_missing_file_and_no_toml(tmp_path):
    with pytest.raises(InputError, match="missing key 'ranks_per_node'"):
        load_site(written(tmp_path, 'description = "mine"\n'))
    with pytest.raises(InputError, match=r"site file .*nowhere\.toml does not exist"):
        load_site(str(tmp_path / "nowhere.toml"))
    with pytest.raises(InputError, match=r"is not TOML[\s\S]*jobs/sites/\*\.toml"):
        load_site(written(tmp_path, "description"))


def test_an_unknown_name_lists_the_sites():
    with pytest.raises(InputError, match="no site 'lumig': did you mean 'lumi-g'") as caught:
        load_site("lumig")
    assert all(name in str(caught.value) for name in site_names())
