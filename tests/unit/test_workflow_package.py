"""Reading workflow packages: what designers write is read back, what strangers send does no harm."""

import io
import json
import random
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.workflow_packages import (
    SAMPLES,
    chained,
    forms,
    inspection,
    newer_designer,
    package,
    procedure,
    question,
    step,
    understated,
    workflow_xml,
)
from media import workflow_package
from media.workflow_package import Package, PackageRefused, read_package

Document = dict[str, Any]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages") / "package.zip"


def read(path: Path, content: bytes) -> Package:
    path.write_bytes(content)
    return read_package(path)


def steps_of(path: Path, content: bytes) -> Document:
    found = read(path, content)
    assert found.problem is None
    return dict(json.loads(unpacked(found.steps)))


def unpacked(kept: bytes) -> bytes:
    content: bytes = zstandard.decompress(kept)
    return content


def problem_of(path: Path, xml: bytes | None) -> str:
    found = read(path, package(xml))
    assert found.opaque
    assert found.problem
    return found.problem


def refusal(path: Path, content: bytes) -> PackageRefused:
    with pytest.raises(PackageRefused) as refused:
        read(path, content)
    return refused.value


# What designers write


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_read_as_it_was_written(path: Path, name: str) -> None:
    document = SAMPLES[name]()
    assert steps_of(path, package(document)) == document


def test_a_package_without_a_workflow_is_opaque(path: Path) -> None:
    assert problem_of(path, None) == "The package has no workflow.xml at its root."
    inside = package(None, {"folder/workflow.xml": workflow_xml(inspection())})
    assert read(path, inside).opaque
    assert read(path, package(None, {})).opaque


def test_the_workflow_is_found_whatever_the_case_of_its_name(path: Path) -> None:
    content = package(None, {"Workflow.XML": workflow_xml(inspection())})
    assert not read(path, content).opaque


def test_what_a_newer_designer_writes_is_kept_as_it_is(path: Path) -> None:
    document = steps_of(path, package(newer_designer()))
    assert document["title"] == "From the future"
    assert document["extra"]["attributes"] == [
        {"in": "", "name": "IsReport", "value": "perhaps"},
        {"in": "", "name": "Theme", "value": "dark"},
    ]
    (translations,) = document["extra"]["elements"]
    assert translations == {
        "in": "",
        "name": "Translations",
        "namespace": "urn:designer:9",
        "elements": [
            {
                "name": "Text",
                "namespace": "urn:designer:9",
                "attributes": {"Language": "de"},
                "text": "Aus der Zukunft",
            }
        ],
    }
    (hologram,) = document["steps"]
    assert (hologram["type"], hologram["inputType"]) == ("HologramStep", "Thermal")
    assert (hologram["optional"], hologram["position"]) == (None, None)
    assert hologram["constraint"]["type"] == "Range"
    kept = {(item["in"], item["name"]): item.get("text") for item in hologram["extra"]["elements"]}
    assert kept == {
        ("", "IsOptional"): "sometimes",
        ("Base", "Hint"): "It ",
        ("Base/DesignerData", "Position"): "left,top",
        ("Base/DesignerData", "Layer"): "2",
        ("InputParameter/Constraint", "MinSelection"): "many",
        ("InputParameter/Constraint", "Unit"): "K",
    }
    hint = hologram["extra"]["elements"][1]
    assert hint["elements"][0]["tail"] == " a little"
    attributes = {(item["in"], item["name"]): item["value"] for item in hologram["extra"]["attributes"]}
    assert attributes == {("", "Depth"): "3", ("Base", "Locked"): "true"}


def test_known_elements_with_more_in_them_are_kept_whole(path: Path) -> None:
    xml = b"""<Procedure><Steps>words<Step Type="S"><Base ID="a"><Title Size="2">T</Title><Title>U</Title>
    <Connections><Connection ID="c" Weight="5" Sink="b"/></Connections></Base>
    <InputParameter><Constraint><Choices><Choice Value="1">One</Choice><Other/></Choices></Constraint>
    </InputParameter></Step><Note>n</Note></Steps><Report Export="true" Paper="A4"/></Procedure>"""
    document = steps_of(path, package(xml))
    (only,) = document["steps"]
    assert only["title"] == "T"
    assert only["connections"] == [{"id": "c", "type": None, "source": None, "sink": "b"}]
    assert only["constraint"]["choices"] == ["One"]
    names = [item["name"] for item in only["extra"]["elements"]]
    assert names == ["Title", "Title", "Connections", "Choices"]
    assert document["exportReport"] is True
    steps, report = document["extra"]["elements"]
    assert (steps["name"], steps["text"]) == ("Steps", "words")
    # The steps themselves are not in it once more.
    assert steps["elements"] == [{"name": "Note", "text": "n"}]
    assert report["attributes"] == {"Export": "true", "Paper": "A4"}


def test_a_step_elsewhere_is_no_step(path: Path) -> None:
    xml = b"<Procedure><Drafts><Steps><Step Type='S'/></Steps></Drafts><Steps><Step/></Steps></Procedure>"
    document = steps_of(path, package(xml))
    assert [item["type"] for item in document["steps"]] == [None]
    assert document["extra"]["elements"][0]["elements"][0]["elements"][0]["name"] == "Step"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_of_windows_are_read(path: Path, encoding: str) -> None:
    xml = workflow_xml(SAMPLES["unicode"]()).decode()
    content = xml.replace('encoding="utf-8"', 'encoding="utf-16"') if encoding == "utf-16" else xml
    assert steps_of(path, package(content.encode(encoding)))["title"] == "Überprüfung der Wasserpumpe № 7"


def test_a_large_zip_of_the_64_bit_form_is_read(path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open("workflow.xml", "w", force_zip64=True) as file:
        file.write(workflow_xml(inspection()))
    assert len(steps_of(path, target.getvalue())["steps"]) == 7


# What cannot be read


@pytest.mark.parametrize(
    ("xml", "part"),
    [
        (b"", "well-formed"),
        (b"<Procedure><Steps>", "well-formed"),
        (b"\xff\xfe\x00", "well-formed"),
        (b"<html/>", "not a Procedure"),
        (b'<?xml version="1.0" encoding="klingon"?><Procedure/>', "workflow.xml"),
        (b'<?xml version="1.0" encoding="utf-7"?><Procedure/>', "workflow.xml"),
        (b'<!DOCTYPE Procedure SYSTEM "file:///etc/passwd"><Procedure/>', "document type"),
        (
            b'<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><Procedure>&b;</Procedure>',
            "document type",
        ),
        (b"<Procedure>&unknown;</Procedure>", "well-formed"),
        (b"<a>" * 200 + b"</a>" * 200, "Procedure"),
        (b"<Procedure>" + b"<a>" * 100 + b"</a>" * 100 + b"</Procedure>", "inside each other"),
        (b"<Procedure>" + b"<a/>" * 60_000 + b"</Procedure>", "too many elements"),
        (
            b"<Procedure><Steps><Step>" + b"<a/>" * 60_000 + b"</Step></Steps></Procedure>",
            "too many elements",
        ),
        (b"<Procedure><!--" + b"x" * 2_000_000 + b"--></Procedure>", "comment"),
        (b"<Procedure " + b"".join(b"a%d='' " % n for n in range(200_000)) + b"/>", "tag"),
        (b"<Procedure><Steps>" + b"<Step/>" * 100_001 + b"</Steps></Procedure>", "steps"),
    ],
)
def test_a_workflow_that_cannot_be_read_is_opaque_and_says_why(path: Path, xml: bytes, part: str) -> None:
    assert part in problem_of(path, xml)


def test_short_elements_in_a_long_namespace_do_not_grow_without_end(path: Path) -> None:
    name = b"u" * 100_000
    xml = b'<Procedure xmlns:n="' + name + b'">' + b"<n:a/>" * 5_000 + b"</Procedure>"
    assert "too long" in problem_of(path, xml)


def test_a_workflow_that_unpacks_to_too_much_is_opaque(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_package, "MAX_XML_BYTES", 1_000)
    assert "more than 1,000 bytes" in problem_of(path, workflow_xml(inspection()))


def test_the_length_that_the_archive_declares_is_not_believed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_package, "MAX_XML_BYTES", 100_000)
    content = bytearray(package(b"<Procedure>" + b" " * 500_000 + b"</Procedure>", {}))
    size = struct.pack("<I", 500_023)
    assert content.count(size) == 2
    lying = bytes(content).replace(size, struct.pack("<I", 50))
    assert "more than the directory" in refusal(path, lying).detail


def test_the_names_of_all_steps_are_read_with_those_inside_others(path: Path) -> None:
    inner = question("Photo", "Seal", stepId="b", tag="seal")
    group = step("GroupStep", "Checks", inner, stepId="a")
    unnamed = step("ConfirmStep", "Nobody asks for it", stepId=None)
    found = read(path, package(procedure([group, unnamed])))
    assert json.loads(unpacked(found.names)) == {
        "a": ["Checks", None, "GroupStep"],
        "b": ["Seal", "seal", "Photo"],
    }
    assert read(path, package(None)).names == b""


def test_a_long_text_is_read(path: Path) -> None:
    document = procedure([step("ConfirmStep", "long " * 1_000_000)])
    assert steps_of(path, package(document, {"noise": random.Random(1).randbytes(100_000)})) == document


def test_a_deep_tree_of_forms_is_read(path: Path) -> None:
    document = forms(40)
    assert steps_of(path, package(document)) == document


def test_many_steps_are_read(path: Path) -> None:
    document = procedure(chained(*[step("ConfirmStep", str(number)) for number in range(2_000)]))
    assert steps_of(path, package(document)) == document


def damaged(flip: int) -> bytes:
    content = bytearray(package(inspection(), {}))
    content[100] ^= flip
    return bytes(content)


def test_a_damaged_workflow_is_opaque(path: Path) -> None:
    assert "damaged" in (read(path, damaged(0xFF)).problem or "")


def test_an_encrypted_workflow_is_opaque(path: Path) -> None:
    content = bytearray(package(inspection(), {}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in (read(path, bytes(content)).problem or "")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_uncommon_compression_is_opaque(path: Path, method: int) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("workflow.xml", workflow_xml(inspection()))
    assert "uncommon" in (read(path, target.getvalue()).problem or "")


# What is refused


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"no zip at all",
        b"PK\x03\x04" + bytes(100),
        package(inspection())[:-30],
        package(inspection())[: len(package(inspection())) // 2],
    ],
)
def test_what_is_no_zip_is_refused(path: Path, content: bytes) -> None:
    assert refusal(path, content).code == "not-a-package"


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "a/../../up",
        "..\\up",
        "a\\..\\..\\up",
        "/etc/passwd",
        "\\windows",
        "C:\\windows",
        "c:file",
        "..",
        "line\nbreak",
    ],
)
def test_a_name_that_leads_out_of_the_package_is_refused(path: Path, name: str) -> None:
    assert refusal(path, package(inspection(), {name: b"x"})).code == "unsafe-package"


def test_names_with_dots_inside_are_fine(path: Path) -> None:
    assert not read(path, package(inspection(), {"a..b/...c": b"x", "folder/": b""})).opaque


def test_a_name_with_a_nul_is_refused(path: Path) -> None:
    content = package(inspection(), {"pump.jpgX.exe": b"x"}).replace(b"pump.jpgX", b"pump.jpg\0")
    assert refusal(path, content).code == "unsafe-package"


@pytest.mark.parametrize("names", [("a.txt", "a.txt"), ("a/b", "a\\b"), ("workflow.xml", "WORKFLOW.xml")])
def test_a_name_that_comes_twice_is_refused(path: Path, names: tuple[str, str]) -> None:
    target = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w") as archive:
        warnings.simplefilter("ignore")
        for name in names:
            archive.writestr(name, b"x")
    assert "twice" in refusal(path, target.getvalue()).detail


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(path: Path, kind: int) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert refusal(path, target.getvalue()).code == "unsafe-package"


def test_too_many_files_are_refused(path: Path) -> None:
    content = package(None, {f"{number:x}": b"" for number in range(10_001)})
    assert "10,001 files" in refusal(path, content).detail
    assert read(path, package(None, {f"{number:x}": b"" for number in range(10_000)})).opaque


def test_a_directory_of_many_megabytes_is_not_read(path: Path) -> None:
    content = package(None, {"n" * 60_000 + str(number): b"" for number in range(80)})
    assert refusal(path, content).code == "not-a-package"


def test_what_unpacks_to_many_times_its_size_is_refused(path: Path) -> None:
    content = package(inspection(), {"zeros": bytes(60 * 1024 * 1024)})
    assert "times its size" in refusal(path, content).detail


def test_what_unpacks_to_gigabytes_is_refused(path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("big", b"x")
    content = bytearray(target.getvalue())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 2**31 + 1)
    assert "2,147,483,649 bytes" in refusal(path, bytes(content)).detail


def test_files_that_share_their_bytes_are_refused(path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a", b"x" * 1_000)
        archive.writestr("b", b"y" * 1_000)
    content = bytearray(target.getvalue())
    # The second entry points at the first file's bytes.
    at = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    content[at + 42 : at + 46] = struct.pack("<I", 0)
    assert "overlaps" in refusal(path, bytes(content)).detail


@pytest.mark.parametrize(("size", "declared"), [(11, 10), (256 * 1024 + 21, 256 * 1024), (100_000_000, 10)])
def test_a_file_that_unpacks_to_more_than_it_declares_is_refused(
    path: Path, size: int, declared: int
) -> None:
    refused = refusal(path, understated(size, declared))
    assert (refused.code, refused.detail) == (
        "unsafe-package",
        "zeros unpacks to more than the directory of the package says.",
    )


def test_a_bomb_is_left_where_it_passes_its_declared_size(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = 0
    real = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._inner = real(bits)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def decompress(self, *args: Any) -> bytes:
            nonlocal came
            piece = self._inner.decompress(*args)
            came += len(piece)
            return piece

    content = understated(200_000_000)
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    assert refusal(path, content).code == "unsafe-package"
    assert 0 < came < 1_000_000


def test_a_file_as_long_as_it_declares_is_unpacked_to_its_end(path: Path) -> None:
    noise = random.Random(1).randbytes(700_000)
    files = {"a": bytes(3_000_000), "b": noise, "c": bytes(256 * 1024), "d": b"x" * (512 * 1024), "e": b""}
    assert not read(path, package(inspection(), files)).opaque


def test_a_stored_file_has_the_size_that_it_declares(path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("stored", bytes(100))
    content = bytearray(target.getvalue())
    assert read(path, bytes(content)).opaque
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 50)
    assert refusal(path, bytes(content)).code == "unsafe-package"


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"XX"),  # no header there
        (6, struct.pack("<H", 1)),  # encrypted
        (8, struct.pack("<H", zipfile.ZIP_STORED)),  # the method
        (30, b"../"),  # the name
    ],
)
def test_a_file_whose_header_says_something_else_than_the_directory_is_refused(
    path: Path, at: int, value: bytes
) -> None:
    content = bytearray(package(inspection(), {}))
    content[at : at + len(value)] = value
    refused = refusal(path, bytes(content))
    assert (refused.code, refused.detail) == (
        "unsafe-package",
        "workflow.xml is not where the directory of the package says.",
    )


# Whatever comes

_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"),
    max_size=12,
)
_ID = _TEXT.map(lambda text: text.strip())


def _steps(children: st.SearchStrategy[list[Document]]) -> st.SearchStrategy[list[Document]]:
    connection = st.fixed_dictionaries({"id": _TEXT, "type": _TEXT, "source": _TEXT, "sink": _TEXT})
    constraint = st.fixed_dictionaries(
        {
            "type": _TEXT,
            "choices": st.lists(_TEXT, max_size=3),
            "fixedMode": st.none() | st.booleans(),
            "min": st.none() | st.integers(-1000, 1000),
            "max": st.none() | st.integers(-1000, 1000),
        }
    )
    whole = st.integers(-5000, 5000).map(float)
    one = st.fixed_dictionaries(
        {
            "stepId": st.none() | _TEXT,
            "type": st.none() | _TEXT,
            "title": _TEXT,
            "description": _TEXT,
            "tag": st.none() | _TEXT,
            "inputType": st.none() | _TEXT,
            "optional": st.none() | st.booleans(),
            "constraint": st.none() | constraint,
            "isReport": st.booleans(),
            "connections": st.lists(connection, max_size=3),
            "position": st.none() | st.fixed_dictionaries({"x": whole, "y": whole}),
            "steps": children,
            "extra": st.just({}),
        }
    )
    return st.lists(one, max_size=3)


_graphs = st.recursive(st.just([]), _steps, max_leaves=12)


@given(steps=_graphs, title=_TEXT, capabilities=st.lists(_TEXT, max_size=3))
@settings(deadline=None)
def test_every_graph_is_read_as_it_was_written(
    path: Path, steps: list[Document], title: str, capabilities: list[str]
) -> None:
    document = procedure(steps, title, capabilities=capabilities)
    assert steps_of(path, package(document)) == document


def _read_or_refused(path: Path, content: bytes) -> None:
    found, refused = None, None
    try:
        found = read(path, content)
    except PackageRefused as error:
        refused = error
    if found is None:
        assert refused is not None
        assert refused.code in ("not-a-package", "unsafe-package")
        assert refused.detail.isprintable()
        return
    assert found.opaque == (found.problem is not None)
    if found.problem is not None:
        assert found.problem.isprintable()
    else:
        json.loads(unpacked(found.steps))
        json.loads(unpacked(found.names))


_NAMES = ("Procedure", "Steps", "Step", "Base", "Title", "DesignerData", "Position", "InputParameter")
_MORE = ("Constraint", "Choices", "Choice", "Connections", "Connection", "Report", "Capabilities", "x:y")


def _tree(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.sampled_from(_NAMES + _MORE)
    attribute = st.sampled_from(
        ["", ' ID="1"', ' Type="T"', ' IsReport="TRUE"', ' xmlns:x="u"', ' Export="x"']
    )
    parts = st.lists(st.sampled_from(["", " ", "t", "1,2", "true"]) | children, max_size=5).map("".join)
    return st.builds(
        lambda name, attribute, inner: f"<{name}{attribute}>{inner}</{name}>", names, attribute, parts
    )


@given(inner=st.recursive(st.just(""), _tree, max_leaves=25))
@settings(deadline=None)
def test_whatever_the_elements_are_they_are_read_or_the_reason_is_told(path: Path, inner: str) -> None:
    _read_or_refused(path, package(f'<Procedure xmlns:x="urn:x">{inner}</Procedure>'.encode(), {}))


@given(xml=st.binary(max_size=200))
@settings(deadline=None)
def test_whatever_the_xml_is_it_is_read_or_the_reason_is_told(path: Path, xml: bytes) -> None:
    _read_or_refused(path, package(xml, {}))


@given(content=st.binary(max_size=300))
@settings(deadline=None)
def test_whatever_the_file_is_it_is_read_or_refused(path: Path, content: bytes) -> None:
    _read_or_refused(path, content)


_WHOLE = package(inspection(), {"a.txt": b"text", "b/c.bin": bytes(50)})
_change = st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255))
#: The directory and its end, where changes do the most.
_change_of_directory = st.tuples(
    st.integers(_WHOLE.index(b"PK\x01\x02"), len(_WHOLE) - 1), st.integers(0, 255)
)


@given(
    changes=st.lists(_change | _change_of_directory, min_size=1, max_size=6), cut=st.integers(0, len(_WHOLE))
)
@settings(deadline=None, max_examples=400)
def test_whatever_is_changed_in_a_package_it_is_read_or_refused(
    path: Path, changes: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(_WHOLE)
    for at, value in changes:
        content[at] = value
    _read_or_refused(path, bytes(content))
    _read_or_refused(path, bytes(content[:cut]))
