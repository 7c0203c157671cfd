"""No file name of an annotation file leaves the data root."""

from pathlib import Path

import pytest

from boxmatch.data.paths import safe_name
from boxmatch.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a neighbour, and links that stay inside and that leave it."""
    for folder in ("root/images/sub", "root2", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "root/images/a.jpg").touch()
    (tmp_path / "outside/secret.jpg").touch()
    (tmp_path / "root2/secret.jpg").touch()
    (tmp_path / "root/inner").symlink_to(tmp_path / "root/images")
    (tmp_path / "root/outer").symlink_to(tmp_path / "outside")
    (tmp_path / "root/images/link_in.jpg").symlink_to(tmp_path / "root/images/a.jpg")
    (tmp_path / "root/images/link_out.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (tmp_path / "root/images/link_chain.jpg").symlink_to("link_out.jpg")
    return tmp_path / "root"


REFUSED = [
    "",
    " ",
    ".",
    "..",
    "../a.jpg",
    "../root2/secret.jpg",
    "../../etc/passwd",
    "images/../../outside/secret.jpg",
    "images/../..",
    "./../outside/secret.jpg",
    "a/b/../../../outside/secret.jpg",
    "/etc/passwd",
    "//etc/passwd",
    "/",
    "..\\outside\\secret.jpg",
    "images\\..\\..\\outside\\secret.jpg",
    "\\etc\\passwd",
    "C:\\Windows\\system.ini",
    "C:/Windows/system.ini",
    "c:secret.jpg",
    "\\\\server\\share\\a.jpg",
    "//server/share/a.jpg",
    "a\0.jpg",
    "\0/etc/passwd",
    "a\n.jpg",
    "images/\x1b[31m.jpg",
    "half \ud800.jpg",
    "outer/secret.jpg",
    "outer/sub/new.jpg",
    "images/link_out.jpg",
    "images/link_chain.jpg",
    "inner/../../outside/secret.jpg",
]
ACCEPTED = {
    "images/a.jpg": "images/a.jpg",
    "./images/a.jpg": "images/a.jpg",
    "images/sub/../a.jpg": "images/a.jpg",
    "images\\a.jpg": "images/a.jpg",
    "images//a.jpg": "images/a.jpg",
    "images/link_in.jpg": "images/link_in.jpg",
    "inner/a.jpg": "inner/a.jpg",
    "missing.jpg": "missing.jpg",
    "images/..a.jpg": "images/..a.jpg",
    "images/a b (1).jpg": "images/a b (1).jpg",
    "images/größe:1.jpg": "images/größe:1.jpg",
    ".hidden/a.jpg": ".hidden/a.jpg",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_leads_out_of_the_root_is_refused(root, name):
    with pytest.raises(DataError):
        safe_name(root, name)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_name_below_the_root_is_accepted_in_its_plain_form(root, name):
    assert safe_name(root, name) == ACCEPTED[name]


def test_a_name_counts_from_its_folder(root):
    assert safe_name(root, "../images/a.jpg", "labels") == "images/a.jpg"
    assert safe_name(root, "a.jpg", ".") == "a.jpg"


def test_a_name_may_not_leave_the_root_from_its_folder_either(root):
    with pytest.raises(DataError, match="leads out"):
        safe_name(root, "../../a.jpg", "labels")


def test_an_absolute_name_below_the_root_is_accepted(root):
    assert safe_name(root, str(root / "images/a.jpg"), "labels") == "images/a.jpg"


def test_the_root_itself_may_be_a_link(root):
    link = root.parent / "link"
    link.symlink_to(root)
    assert safe_name(link, "images/a.jpg") == "images/a.jpg"


def test_a_relative_root_works(root, monkeypatch):
    monkeypatch.chdir(root)
    assert safe_name(Path("."), "images/a.jpg") == "images/a.jpg"
    with pytest.raises(DataError):
        safe_name(Path("."), "../outside/secret.jpg")
