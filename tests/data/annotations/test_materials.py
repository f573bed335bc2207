"""The category-to-material table: every row usable, and the categories covered exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.factories import DEFAULT_MAPPING, MATERIALS, write_mapping

from wastelens.data.annotations.materials import (
    RESERVED_NAMES,
    check_covers,
    mapping_frame,
    mapping_of_labels,
    proposed_mapping,
    read_mapping,
    with_materials,
)
from wastelens.errors import MappingError

ANNOTATIONS = Path("data/annotations.json")


def refusal(path):
    with pytest.raises(MappingError) as caught:
        read_mapping(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_rows_are_read_in_their_order(tmp_path):
    mapping = read_mapping(write_mapping(tmp_path / "m.csv", [("B", "paper"), (" A ", " glass "), ("C", "paper")]))
    assert mapping.material_of == {"B": "paper", "A": "glass", "C": "paper"}
    assert mapping.materials == ("paper", "glass")


@pytest.mark.parametrize("name", ["default", "predecessor"])
def test_shipped_mappings_give_each_of_60_categories_one_material(name):
    mapping = read_mapping(DEFAULT_MAPPING.with_stem(name))
    assert len(mapping.material_of) == 60
    assert sorted(mapping.materials) == sorted(MATERIALS)
    assert set(mapping.material_of) == set(read_mapping(DEFAULT_MAPPING).material_of)


def test_default_mapping_has_the_contracts_order():
    assert read_mapping(DEFAULT_MAPPING).materials == MATERIALS


def test_trashnets_mapping_knows_its_classes_by_the_default_materials():
    mapping = read_mapping(DEFAULT_MAPPING.with_stem("trashnet"))
    assert sorted(mapping.material_of) == ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
    assert mapping.materials == MATERIALS[:-1]  # nothing in it is toxic


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("category,material\r\nÄ,glass\r\n\r\nB,paper\r\n", "utf-8-sig"),
        ("Category;Material;Reason\r\nÄ;glass;clear, mostly\r\nB;paper;\r\n;;\r\n", "utf-8"),
        ("sep=;\r\ncategory;material\r\nÄ;glass\r\nB;paper\r\n", "utf-8-sig"),
        ("CATEGORY\tMATERIAL\t\nÄ\tglass\t\nB\tpaper\t\n", "utf-16"),
        ("material,category\rglass,Ä\rpaper,B\r", "utf-16-le"),
        ('"category";"material";"a,b,c"\n"Ä";"glass";""\n"B";"paper";""\n', "utf-8"),
    ],
)
def test_mappings_as_spreadsheets_save_them(tmp_path, text, encoding):
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode(encoding))
    assert read_mapping(path).material_of == {"Ä": "glass", "B": "paper"}


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("Plastic", "plastic"),
        ("Paper & Card", "paper_card"),
        ("Altöl", "altol"),
        ("2nd hand", "nd_hand"),
        ("val", "val_material"),
        ("Very low", "very_low_material"),
    ],
)
def test_a_name_that_no_material_may_have_gets_a_proposal_that_works(tmp_path, name, legal):
    message = refusal(write_mapping(tmp_path / "m.csv", [("A", name), ("B", "steel")]))
    assert f"Write '{legal}'" in message
    assert read_mapping(write_mapping(tmp_path / "m.csv", [("A", legal), ("B", "steel")])).material_of["A"] == legal


def test_a_name_without_latin_letters_gets_none(tmp_path):
    assert "Write another name: lower-case" in refusal(write_mapping(tmp_path / "m.csv", [("A", "纸"), ("B", "steel")]))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("A", "glass"), ("A", "paper")], "line 3: category 'A' has a row already. Keep one of them."),
        ([("A", "glass"), (" A", "glass")], "line 3: category 'A' has a row already."),
        ([("A", "glass"), ("B", "")], "line 3: category 'B' has an empty material. Write one."),
        ([("A", "glass"), ("B", "  ")], "line 3: category 'B' has an empty material."),
        ([("A", "glass"), ("", "paper")], "line 3: the category is empty. Name it or remove the line."),
        ([("A", "Glass"), ("B", "paper")], "line 2: 'Glass' cannot name a material. Write 'glass': lower-case letters"),
        ([("A", "../glass"), ("B", "paper")], "line 2: '../glass' cannot name a material."),
        ([("A", "glass"), ("B", "glass")], "maps to 1 material(s), but at least two are needed"),
        ([], "maps to 0 material(s)"),
        *[
            ([("A", name), ("B", "glass")], f"'{name}' cannot name")
            for name in (*sorted(RESERVED_NAMES), "chance_low", "x_high")
        ],
    ],
)
def test_bad_rows_are_refused_with_their_line(tmp_path, rows, words):
    assert words in refusal(write_mapping(tmp_path / "m.csv", rows))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "needs the columns 'category' and 'material' in its first line."),
        (b"A,glass\nB,paper\n", "needs the columns"),
        (b"category;material\nA;glass\n", "maps to 1 material(s)"),
        (b'category,material\nA,"glass\nB,paper\n', "is not CSV text (line 3: unexpected end of data)"),
        (b"category,material" + b"," * 20_000, "has more than 10,000 columns"),
        (b"category,material\nA\nB,glass\n", "line 2: category 'A' has an empty material."),
        (b"category,material\nB\xe9,glass\n", "is not CSV text"),
    ],
)
def test_unreadable_tables(tmp_path, content, words):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    assert words in refusal(path)


def test_missing_file_and_folder(tmp_path):
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "none.csv")
    assert "cannot be read (Is a directory)" in refusal(tmp_path)


def test_category_without_a_material(tmp_path):
    mapping = read_mapping(write_mapping(tmp_path / "m.csv"))
    with pytest.raises(MappingError) as caught:
        check_covers(mapping, ["Drink can", "Pop tab", "Glass bottle"], ANNOTATIONS)
    assert str(caught.value) == (
        f"{ANNOTATIONS}: category 'Pop tab' has no material. Add a row to {tmp_path / 'm.csv'}, or give your own "
        "mapping: -P materials=FILE.csv"
    )


def test_row_for_an_unknown_category_names_the_nearest(tmp_path):
    mapping = read_mapping(write_mapping(tmp_path / "m.csv", [("Drink cn", "aluminium"), ("Glass bottle", "glass")]))
    with pytest.raises(MappingError, match="category 'Drink can' has no material"):
        check_covers(mapping, ["Drink can", "Glass bottle"], ANNOTATIONS)
    extra = read_mapping(
        write_mapping(
            tmp_path / "m.csv", [("Drink can", "metal"), ("Glass bottles", "glass"), ("Glass bottle", "glass")]
        )
    )
    with pytest.raises(MappingError) as caught:
        check_covers(extra, iter(["Drink can", "Glass bottle"]), ANNOTATIONS)
    assert str(caught.value) == (
        f"{tmp_path / 'm.csv'}: 'Glass bottles' is not a category of {ANNOTATIONS}. "
        "Did you mean 'Glass bottle'? Correct or remove the row."
    )


def test_categories_that_no_object_has_need_no_material(tmp_path):
    mapping = read_mapping(write_mapping(tmp_path / "m.csv"))
    check_covers(mapping, ["litter", "Drink can", "Glass bottle"], ANNOTATIONS, unused=["litter", "Drink can"])
    with pytest.raises(MappingError, match="category 'litter' has no material"):
        check_covers(mapping, ["litter", "Drink can", "Glass bottle"], ANNOTATIONS, unused=["Drink can"])


def test_materials_that_do_not_occur_take_their_rows_with_them(tmp_path):
    rows = [("Drink can", "aluminium"), ("Jar", "glass"), ("Battery", "toxic"), ("Lid", "aluminium")]
    mapping = read_mapping(write_mapping(tmp_path / "m.csv", rows))
    assert with_materials(mapping, {"aluminium", "glass", "toxic"}) == mapping
    kept = with_materials(mapping, {"aluminium", "glass"})
    assert kept.materials == ("aluminium", "glass")
    assert list(kept.material_of) == list(kept.reasons) == ["Drink can", "Jar", "Lid"]
    with pytest.raises(MappingError, match="the annotated objects are of only glass, but at least two materials are"):
        with_materials(mapping, {"glass"})


def test_same_sets_are_accepted(tmp_path):
    check_covers(read_mapping(write_mapping(tmp_path / "m.csv")), ["Glass bottle", "Drink can"], ANNOTATIONS)


def test_the_rows_that_were_used_are_a_mapping_again(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('category,material,reason\nJar,glass,"clear, mostly"\nBox,paper,\nPaint,toxic,\n', encoding="utf-8")
    used = mapping_of_labels(read_mapping(path), ["paper", "Jar", "Box"], str)
    mapping_frame(used).to_csv(tmp_path / "used.csv", index=False)
    again = read_mapping(tmp_path / "used.csv")
    assert again.material_of == {"Jar": "glass", "Box": "paper", "paper": "paper"}
    assert (again.materials, again.reasons) == (used.materials, used.reasons)
    assert again.reasons["Jar"] == "clear, mostly"


def test_labels_may_differ_in_capitals(tmp_path):
    mapping = read_mapping(write_mapping(tmp_path / "m.csv", [("Jar", "glass"), ("box", "paper")]))
    assert mapping_of_labels(mapping, ["JAR", "Box", "box"], str).material_of == {
        "JAR": "glass",
        "Box": "paper",
        "box": "paper",
    }


def test_the_mapping_of_a_prepared_dataset_is_not_to_be_edited(tmp_path):
    rows = [("Drink can", "metal"), ("Bottle", "glass")]
    (tmp_path / "beach").mkdir()
    (tmp_path / "beach" / "manifest.json").write_text("{}")
    mapping = read_mapping(write_mapping(tmp_path / "beach" / "materials.csv", rows))
    for check in (
        lambda: mapping_of_labels(mapping, ["Kite", "Bottle"], str, [], tmp_path / "photos"),
        lambda: mapping_of_labels(mapping, ["Bottle"], str, [], tmp_path / "photos"),
        lambda: check_covers(mapping, ["Kite"], ANNOTATIONS, tmp_path / "photos"),
        lambda: check_covers(mapping, ["Bottle"], ANNOTATIONS, tmp_path / "photos"),
    ):
        with pytest.raises(MappingError, match="he mapping of dataset 'beach'") as caught:
            check()
        assert "materials.csv" not in str(caught.value)
        assert " row" not in str(caught.value)
        assert "correct the mapping" not in str(caught.value)


def test_a_label_that_a_shipped_mapping_lacks_asks_for_a_mapping_of_ones_own(tmp_path):
    mapping = read_mapping(DEFAULT_MAPPING)
    for check in (
        lambda: mapping_of_labels(mapping, ["Kite", "paper"], str, [], tmp_path / "my photos"),
        lambda: check_covers(mapping, ["Kite"], ANNOTATIONS, tmp_path / "my photos"),
    ):
        with pytest.raises(MappingError) as caught:
            check()
        command = f"wastelens materials --dataset '{tmp_path}/my photos' > my.csv"
        assert f"has no material in {DEFAULT_MAPPING}. Write a mapping of your own with: {command} (" in str(
            caught.value
        )


def test_proposed_materials(tmp_path):
    labels = ["Battery", "cardboard", "Glass", "sweetWrappers", "Plastic bottles", "Kites & co", "Low", "凧"]
    proposed = proposed_mapping(
        labels, [read_mapping(DEFAULT_MAPPING), read_mapping(DEFAULT_MAPPING.with_stem("trashnet"))]
    )
    assert proposed["material"].tolist() == [
        "toxic",
        "paper",
        "glass",
        "sweetwrappers",
        "plastic",
        "kites_co",
        "low_material",
        "material_8",
    ]
    assert proposed["reason"].str.startswith("proposed").tolist() == [False, False, False] + [True] * 5
    proposed.to_csv(tmp_path / "my.csv", index=False)
    assert list(read_mapping(tmp_path / "my.csv").material_of) == labels
