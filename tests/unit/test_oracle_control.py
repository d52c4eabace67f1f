"""A control differs from its tests in one expected value, which keeps its place."""

import random

import pytest

from soda_jobs.sandbox.oracle.control import perturbed
from soda_jobs.sandbox.oracle.tokens import tokens

# language, tests, what may stand in the place of the changed part
ONE = [
    ("python", "assert f(2) == 5", "5"),
    ("python", "assert 5 == f(2), 'at 2'", "5"),
    ("python", "assert (f(2) == 5)", "5"),
    ("python", "x = 3\nassert f(x) == -5  # not 7", "5"),
    ("python", "assert f(2) == 'abc'", "'abc'"),
    ("python", "assert f('a#b', \"c\") == True", "True"),
    ("python", "assert f(2) == {'a': 1}", "1"),
    ("python", "assert f(2) == {\n    'a':\n    7,\n}", "7"),
    ("python", "assert abs(f(2) - 0.5) < 1e-6", "0.5"),
    ("python", "assert math.isclose(f(2), 0.5, rel_tol=1e-3)", "0.5"),
    ("python", "assert set(f(2)) == set([7])", "7"),
    ("python", "self.assertEqual(f(2), 8)", "8"),
    ("python", "self.assertEqual(8, f(2))", "8"),
    ("java", "assertEquals(8, s.f(2));", "8"),
    ("java", "List<Boolean> correct = Arrays.asList(\n  s.f(2) == 8\n);", "8"),
    ("java", "List<Boolean> correct = Arrays.asList(s.f(2).equals(Arrays.asList(8)));", "8"),
    ("java", 'List<Boolean> correct = Arrays.asList(Objects.equals(s.f(2), "ab"));', '"ab"'),
    ("java", "if (s.f(2) != 8) { throw new AssertionError(); }", "8"),
    ("java", "assert s.f(2) == 8 : 9;", "8"),
    ("javascript", "console.assert(f(2) === 8)", "8"),
    ("javascript", "console.assert(JSON.stringify(f(2)) === JSON.stringify([8]))", "8"),
    ("javascript", "assert.deepStrictEqual(f(2), 'ab');", "'ab'"),
    ("javascript", "expect(f(2)).toBe(8);", "8"),
    ("typescript", "console.assert(f(2) === true)", "true"),
    ("c", "#include <assert.h>\nint main(void) { assert(f(2) == 8); }", "8"),
    ("c", "int main(void) { if (f(2) != 8) return 1; }", "8"),
    ("cpp", "int main() { assert (issame(f({1}), {8})); }", "8"),
    ("cpp", "assert (f(2) == 'x');", "'x'"),
    ("cpp", "assert (fabs(f(2) - 2.0/3.0) < 1e-4);", "2.0"),
    ("go", "assert.Equal(8, F(2))", "8"),
    ("go", 'if got := F(2); F(2) != 8 { t.Fatalf("%v", got) }', "8"),
    ("go", "assert.Equal([3]int{8}, F(2))", "8"),
    ("rust", "assert_eq!(f(2), 8);", "8"),
    ("rust", "assert!(f(2) == vec![8]);", "8"),
    ("rust", 'assert_eq!(f(2), String::from("ab"));', '"ab"'),
    ("ruby", "assert_equal 8, f(2)", None),
    ("ruby", "assert_equal(8, f(2))", "8"),
    ("ruby", "raise 'wrong' unless f(2) == 8", "8"),
]


@pytest.mark.parametrize(("language", "tests", "changed"), ONE)
def test_the_expected_value_changes_and_nothing_else(language: str, tests: str, changed: str | None) -> None:
    for seed in "abcdefgh":
        found = perturbed(language, tests, seed)
        if changed is None:
            assert found is None
            continue
        assert found is not None
        assert len(found) - len(tests) in (0, -1, 1)  # true and false are of different length
        at = tests.index(changed)
        assert found.startswith(tests[:at])
        assert found.endswith(tests[at + len(changed) :])
        assert found[at : len(found) - len(tests[at + len(changed) :])] != changed


AGAINST_FALSE = [
    ("python", "assert is_prime(7)", "assert (is_prime(7)) == False"),
    ("python", "assert not is_prime(8)", "assert (not is_prime(8)) == False"),
    ("python", "assert f(1) != 2", "assert (f(1) != 2) == False"),
    ("python", "self.assertFalse(f(1))", "self.assertFalse((f(1)) == False)"),
    ("python", "assert f(1) and f(2) == 3", "assert (f(1) and f(2) == 3) == False"),
    ("javascript", "console.assert(f(1))", "console.assert((f(1)) === false)"),
    ("c", "assert(f(1));", "assert((f(1)) == false);"),
    ("rust", "assert!(f(1));", "assert!((f(1)) == false);"),
    (
        "java",
        "List<Boolean> correct = Arrays.asList(!s.f(1));",
        "List<Boolean> correct = Arrays.asList((!s.f(1)) == false);",
    ),
    ("java", "if (!s.f(x).equals(y)) throw new Error();", "if ((!s.f(x).equals(y)) == false) throw new Error();"),
]


@pytest.mark.parametrize(("language", "tests", "control"), AGAINST_FALSE)
def test_a_check_without_a_value_is_compared_with_false(language: str, tests: str, control: str) -> None:
    assert perturbed(language, tests, "any") == control


NONE = [
    ("python", ""),
    ("python", "f(1)\nprint(f(2) == 3)"),
    ("python", "# assert f(1) == 2"),
    ("python", "'assert f(1) == 2'"),
    ("c", "int main(void) { return f(2) - 3; }"),
    ("c", "// assert(f(1) == 2);\n/* assert(f(1) == 2); */"),
    ("c", "for (int i = 0; i < f(2); i++) { if (a[i] != 0) return 1; }"),
    ("go", "assert := assert.New(t)"),
    ("go", "assert.Equal(F(1), G(1))"),
    ("c", "assert(f(1) == 2"),
    ("java", "((((([[[[{{{{ assert"),
]


@pytest.mark.parametrize(("language", "tests"), NONE)
def test_tests_without_a_check_have_no_control(language: str, tests: str) -> None:
    assert perturbed(language, tests, "any") is None


def test_every_check_is_drawn_sooner_or_later() -> None:
    tests = "\n".join(f"assert f({n}) == {n}5" for n in range(1, 9))
    lines = {
        next(
            n
            for n, line in enumerate((perturbed("python", tests, str(seed)) or "").splitlines())
            if line not in tests
        )
        for seed in range(200)
    }
    assert lines == set(range(8))


def test_the_same_seed_draws_the_same_control() -> None:
    tests = "assert f(1) == [1, 2, 3]\nassert f(2) == 'some words'"
    assert perturbed("python", tests, "s") == perturbed("python", tests, "s")


def test_any_text_has_tokens_and_perhaps_a_control() -> None:
    draw = random.Random(3)
    pieces = [
        "assert",
        "(",
        ")",
        "==",
        "f(",
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        "1",
        "\n",
        "//",
        "#",
        "/*",
        "!",
        ",",
        " ",
    ]
    languages = ["python", "java", "javascript", "c", "cpp", "go", "rust", "ruby", "typescript"]
    controls = 0
    for _ in range(4000):
        text = "".join(draw.choice(pieces) for _ in range(draw.randrange(40)))
        language = draw.choice(languages)
        tokens(language, text)
        found = perturbed(language, text, "s")
        controls += found is not None
        assert found != text
    assert controls > 20


def test_a_long_text_takes_no_long_time() -> None:
    for text in (
        "assert f(" * 20_000,
        "((" * 50_000,
        '"' * 99_999,
        "if (f(1) != " * 9_000,
        "/*" * 50_000,
        "1" * 99_999,
    ):
        perturbed("c", text, "s")


def test_only_one_place_changes() -> None:
    tests = "assert f(1) == [1, 2, 3]\nassert f(2) == 'some words'\n" * 20
    for seed in range(50):
        found = perturbed("python", tests, str(seed))
        assert found is not None
        assert sum(old != new for old, new in zip(tests, found, strict=True)) == 1
