from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from streaming.abbreviations import CONTINUING, ENDING, NUMBERED, TITLES
from streaming.boundaries import idle_cut, next_cut

# "|" marks where a text is cut; the blanks in front of a piece belong to it.
SENTENCES = [
    # plain sentences
    "Hello there.| How are you?| I am fine!",
    "One sentence without an end",
    "Really?!| Yes!!!| No way?...",
    "Hi.| I am Bob.",
    "What a day!|Now we go.",
    "Two blanks.|  Then more.",
    "First line|\nSecond line",
    "A title|\n\nA paragraph.| Its end.|\n\nAnother",
    "Windows line|\r\nNext line",
    "  Leading blanks.| Then text.",
    # what follows decides
    "The word is. and it goes on",
    "He is 5.| She is 6.",
    "Done.| 5 people came.",
    "I saw it.| “Quoted” words.",
    'I saw it.| "Quoted" words.',
    "Fine.| (An aside.)| More.",
    "Ends with emoji.| 😀 Then.",
    "He came.| ¿Quién es?| ¡Hola!| Sí.",
    "Bold.| **Next** one.",
    # titles and abbreviations
    "Dr. Smith is here.| He waits.",
    "Mr. and Mrs. Jones met Prof. Lee.| They talked.",
    "We saw Gen. Grant.| The general waved.",
    "Ask the gen.| It knows.",
    "Bring fruit, e.g. Apples or pears.| Thanks.",
    "That is, i.e. Tomorrow.| Good.",
    "Cats vs. Dogs is old.| Yes.",
    "Buy milk, eggs, etc. and bread.| Go.",
    "Buy milk, eggs, etc.| The shop is open.",
    "He works at Apple Inc. California is far.| Right.",
    "He works at Apple Inc.| The pay is good.",
    "See No. 5 for details.| Thanks.",
    "No.| I will not.",
    "See Fig. 3 and p. 12.| Then stop.",
    "It was on Jan. 5 in the morning.| Cold.",
    "She lives in St. Louis.| He lives on Main St.| The end.",
    "She has a Ph.D. in physics.| Wow.",
    "Smith et al. 2019 showed it.| Good.",
    # initials and single letters
    "J. R. R. Tolkien wrote it.| I read it.",
    "J.R.R. Tolkien wrote it.| I read it.",
    "The U.S. economy grew.| It did.",
    "They live in the U.S.| They like it.",
    "Meet at 5 p.m. Monday.| OK?",
    "Meet at 5 p.m.| The door is open.",
    "That was plan B.| The next one is C.",
    "J. A. Smith left.| He did.",
    # numbers and versions
    "Pi is 3.14159.| More or less.",
    "It costs $1,000.50 today.| Cheap.",
    "Version 2.0.1 is out.| Get v2.1.| Now.",
    "It was in 2019.| The year was good.",
    "1. Buy milk|\n2. Buy eggs.| Fresh ones.|\n10. Go home",
    "a. First|\nb. Second",
    "At 10:30 we met.| It rained.",
    "Is it 5?| 6!",
    # addresses
    "Go to www.example.com/a.b?c=d!e and look.| Thanks.",
    "See https://example.com.| Then stop.",
    "Mail me at first.last@example.co.uk.| Thanks.",
    "Open file.txt or Node.js.| Done.",
    "Use .NET or not.| OK.",
    # ellipsis
    "Well... maybe.| Fine.",
    "Well...| Maybe not.",
    "Well… maybe.| Fine.",
    "Well…| Maybe not.",
    "...and then it ended.| Yes.",
    # quotes and brackets
    'He said "Stop."| Then he left.',
    '"Why?" she asked.| "No idea."| He left.',
    "“Why?” she asked.| “No idea.”| He left.",
    "(This is an aside.)| This is not.",
    "It was (e.g. Here) fine.| Yes.",
    "*Bold end.*| Next.",
    # markup
    "Run `a. B` twice.| Then stop.",
    'Wait <break time="1. S"/> here.| Go on.',
    "If a < b.| Then c > d.",
    "An `open tick. Goes on" ,
    "An `open tick. Until|\nthe line ends.| Here.",
    # other languages
    "Das gilt z.B. Für uns.| Gut.",
    "Am 3. Oktober war es.| Im 21. Jahrhundert auch.",
    "Hr. Müller kommt.| Fr. Meier geht.",
    "Elle a vu Mme. Dupont.| Très bien.",
    "La Sra. García vino.| Bien.",
    "Il Dott. Rossi parla.| Bene.",
    # scripts without spaces, and their marks
    "你好。|今天天气很好！|我们去公园吧？|好的",
    "他说：“你好。”|然后走了。",
    "圆周率是3.14。|很好。",
    "嗯……我想想。|好。",
    "第1.苹果" ,
    "Windows很好.|下一句。",
    "これは本です。|あれは「ペンです。」|はい。",
    "안녕하세요.| 반갑습니다.| 네!",
    "यह एक वाक्य है।| यह दूसरा है।",
    "هل أنت بخير؟| نعم.",
    # what cannot be spoken does not stand alone
    "Yes!| --- *** Then on.",
    "?! Hello.| Bye.",
    "Hi 👍",
    "!!!",
]  # fmt: skip

FIRST_PIECES = [
    ("Hello! How are you? Fine.", "Hello! How are you?"),
    ("Yes sir. I will.", "Yes sir."),
    ("Sure, I can help you with that, my friend.", "Sure, I can help you with that,"),
    ("Well, yes, I do.", "Well, yes, I do."),
    ("I came, I saw, I won, and left.", "I came, I saw,"),
    ("Here they are: the answers", "Here they are:"),
    ("The total is 1,000,000 dollars, I think", "The total is 1,000,000 dollars,"),
    ("We met at 10:30 and talked (at length) about it", "We met at 10:30 and talked (at length)"),
    ("It was the best—really the best", "It was the best—"),
    ("one two three four five six seven eight nine", "one two three four five six seven eight"),
    ("one two three four five six seven of the nine ten", "one two three four five six seven of the nine"),
    ("one two three four five six seven 8 o'clock then", "one two three four five six seven 8 o'clock"),
    ("ask about it and then you see Mr. Smith Jones", "ask about it and then you see Mr. Smith"),
    ("ask about it all and we see J. Smith Jones", "ask about it all and we see J. Smith"),
    ("a photoelectroencephalography of telecommunications yes", "a photoelectroencephalography of telecommunications"),
    ("one two three four five six seven `eight nine` ten eleven", "one two three four five six seven `eight nine`"),
    ("你好！今天天气很好。我们", "你好！今天天气很好。"),
    ("今天天气很好，我们去公园吧", "今天天气很好，"),
    ("今天，天气很好，我们去公园吧", "今天，天气很好，"),
]  # fmt: skip


def cut_all(text: str, *, max_length: int = 250, first: bool = False) -> list[str]:
    pieces, start = [], 0
    while (
        cut := next_cut(text, start, len(text), max_length=max_length, first=first and not start, final=True)
    ) is not None:
        pieces.append(text[start:cut])
        start = cut
    assert not text[start:].strip()
    return pieces


@pytest.mark.parametrize("marked", SENTENCES)
def test_sentences(marked: str) -> None:
    text = marked.replace("|", "")
    assert cut_all(text) == marked.split("|")


@pytest.mark.parametrize("marked", SENTENCES)
def test_a_cut_is_made_with_a_look_ahead_only(marked: str) -> None:
    text = marked.replace("|", "")
    for end in range(len(text)):
        early = next_cut(text, 0, end, max_length=250)
        assert early in (None, len(marked.split("|")[0]))


@pytest.mark.parametrize(("text", "piece"), FIRST_PIECES)
def test_a_first_piece_is_small(text: str, piece: str) -> None:
    assert cut_all(text, first=True)[0] == piece
    assert next_cut(text, 0, len(text), max_length=250, first=True) in (None, len(piece))


def test_speech_begins_before_the_sentence_is_there() -> None:
    text = "I think that the weather will be fine"
    assert next_cut(text + " ", 0, len(text) + 1, max_length=250, first=True) == len(text)
    assert next_cut(text + " ", 0, len(text) + 1, max_length=250) is None


@pytest.mark.parametrize(
    ("text", "decided_by"),
    [
        ("The end.", " S"),
        ("Hello!", " "),
        ("Hello", "\n"),
        ("你好。", "我"),
        ('He said "no!"', " N"),
        ("See Apple Inc.", " The "),
        ("Well...", " I"),
    ],
)
def test_the_look_ahead_is_no_longer_than_it_must_be(text: str, decided_by: str) -> None:
    for known in range(len(decided_by)):
        assert next_cut(text + decided_by, 0, len(text) + known, max_length=250) is None
    assert next_cut(text + decided_by, 0, len(text + decided_by), max_length=250) == len(text)


def test_too_long_a_piece_is_cut_between_words() -> None:
    assert cut_all("aaaa bbbb cccc dddd", max_length=10) == ["aaaa bbbb", " cccc dddd"]
    assert cut_all("aaaa bbbb cccc", max_length=9) == ["aaaa bbbb", " cccc"]
    assert cut_all("aaaa bbbb cccc", max_length=8) == ["aaaa", " bbbb", " cccc"]
    assert cut_all("aaaa     bbbb", max_length=6) == ["aaaa", "     bbbb"]


def test_too_long_a_piece_is_rather_cut_behind_a_clause() -> None:
    assert cut_all("aaaa bbbb, cccc dddd eeee", max_length=16) == ["aaaa bbbb,", " cccc dddd eeee"]
    # but not where that would make it very short
    assert cut_all("aa, bbbb cccc dddd eeee", max_length=16) == ["aa, bbbb cccc", " dddd eeee"]


def test_too_long_a_word_is_cut_anywhere() -> None:
    assert cut_all("x" * 25, max_length=10) == ["x" * 10, "x" * 10, "x" * 5]
    assert cut_all("今天天气很好我们去公园吧", max_length=5) == ["今天天气很", "好我们去公", "园吧"]
    # Far from the last space, and in a script without spaces: not at the space.
    assert cut_all("A 今天天气很好我们去公园吧", max_length=10)[0] == "A 今天天气很好我们"
    # A letter keeps its marks.
    assert cut_all("e\u0301" * 6, max_length=5) == ["e\u0301e\u0301", "e\u0301e\u0301", "e\u0301e\u0301"]
    assert cut_all("ab", max_length=0) == ["a", "b"]


def test_a_sentence_that_just_fits_is_not_cut() -> None:
    assert cut_all("Aaaa bbb. Cccc ddd.", max_length=9) == ["Aaaa bbb.", " Cccc ddd."]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("", ""),
        ("   ", ""),
        ("Hel", ""),
        ("Hello wor", "Hello"),
        ("Hello world ", "Hello world"),
        ("Hello world.", "Hello world."),
        ("Hello world. ", "Hello world."),
        ('He said "Go!"', 'He said "Go!"'),
        ("Are you there?", "Are you there?"),
        ("So…", "So…"),
        ("Pi is 3", "Pi is"),
        ("Pi is 3.", "Pi is"),
        ("Pi is 3. ", "Pi is 3."),
        ("That is 1 ", "That is"),
        ("That is 1 000", "That is"),
        ("That is 1 apple", "That is 1"),
        ("Mail bob@example.", "Mail"),
        ("See www.", "See"),
        ("See https://example.", "See"),
        ("Run `ls ", "Run"),
        ("Say <break ", "Say"),
        ("- ", ""),
        ("--- Hel", ""),
        ("今天天气", ""),
        ("今天，天气", "今天，"),
        ("今天，", "今天，"),
        ("他说“好。", "他说“好。"),
        ("他说“好。”然", "他说“好。”"),
    ],
)
def test_silence_on_the_wire_frees_what_is_complete(text: str, spoken: str) -> None:
    assert text[: idle_cut(text, 0, len(text))] == spoken


@pytest.mark.parametrize(
    "listed", [TITLES, CONTINUING, NUMBERED, ENDING], ids=["titles", "continuing", "numbered", "ending"]
)
def test_abbreviations_are_written_as_they_are_looked_up(listed: frozenset[str]) -> None:
    assert all(word == word.casefold() and not word.endswith(".") for word in listed)


FRAGMENTS = st.sampled_from([
    "Hello", "world", "the", "a", "I", "Dr", "Mr", "etc", "e.g", "U.S", "Inc", "No", "p.m", "3", "14", "1,000", "21",
    "Oktober", ".", ".", ".", ",", ",", ";", ":", "!", "?", "...", "…", "—", "(", ")", '"', "'", "`", "*", "<", ">",
    "</b>", "你好", "。", "，", "！", "「", "」", "．", " ", " ", " ", " ", " ", "\n", "  ", "\r\n", " " * 70,
])  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=40).map("".join) | st.text(max_size=60)


@given(TEXTS, st.sampled_from([1, 7, 20, 250]), st.booleans())
def test_pieces_tile_the_text(text: str, max_length: int, first: bool) -> None:
    pieces = cut_all(text, max_length=max_length, first=first)
    assert "".join(pieces) == text[: len("".join(pieces))]
    for piece in pieces:
        assert 0 < len(piece.lstrip()) <= max_length
        assert not piece[-1].isspace()


@given(TEXTS, st.sampled_from([1, 7, 20, 250]), st.booleans())
def test_more_text_never_changes_a_cut(text: str, max_length: int, first: bool) -> None:
    cuts = {next_cut(text, 0, end, max_length=max_length, first=first) for end in range(len(text) + 1)} - {None}
    assert len(cuts) <= 1
    final = next_cut(text, 0, len(text), max_length=max_length, first=first, final=True)
    assert not cuts or cuts == {final}


@given(TEXTS)
def test_an_idle_cut_never_splits_a_word_or_a_number(text: str) -> None:
    for end in range(len(text)):
        cut = idle_cut(text, 0, end)
        if cut > 0 and text[cut - 1].isascii() and text[cut].isascii():
            assert not (text[cut - 1].isalnum() and text[cut].isalnum())
            assert not (text[cut - 1] in ".," and text[cut - 2].isdigit() and text[cut].isdigit())
