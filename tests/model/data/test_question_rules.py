"""Questions made from captions by rule, against the questions that a reader expects."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from model.data.question_rules import make_questions
from model.data.question_words import GERUND_OF, GERUNDS, THIRD_PERSONS, is_plural, singular

EXPECTED: dict[str, list[tuple[str, str]]] = {
    "a man is playing a guitar in a kitchen": [
        ("who is playing a guitar?", "man"),
        ("what is a man playing?", "guitar"),
        ("what is a man doing?", "play"),
        ("where is a man playing a guitar?", "kitchen"),
    ],
    "Two dogs are running along the beach .": [
        ("what are two dogs doing?", "run"),
        ("how many dogs are running?", "two"),
        ("where are two dogs running?", "beach"),
    ],
    "a woman slices an onion": [
        ("who is slicing an onion?", "woman"),
        ("what is a woman slicing?", "onion"),
        ("what is a woman doing?", "slice"),
    ],
    "A brown horse gallops through a meadow .": [
        ("what is galloping through a meadow?", "horse"),
        ("what is a brown horse doing?", "gallop"),
        ("where is a brown horse galloping?", "meadow"),
    ],
    "People dance on a stage": [
        ("who is dancing on a stage?", "people"),
        ("what are people doing?", "dance"),
        ("where are people dancing?", "stage"),
    ],
    "a boy in a red shirt is kicking a ball": [
        ("who is kicking a ball?", "boy"),
        ("what is a boy kicking?", "ball"),
        ("what is a boy doing?", "kick"),
    ],
    "A girl wearing a helmet rides a bike down the street .": [
        ("who is riding a bike?", "girl"),
        ("what is a girl riding?", "bike"),
        ("what is a girl doing?", "ride"),
        ("where is a girl riding a bike?", "street"),
    ],
    "a cat sleeping on a sofa": [
        ("what is sleeping on a sofa?", "cat"),
        ("what is a cat doing?", "sleep"),
        ("where is a cat sleeping?", "sofa"),
    ],
    "an old man is sitting on a suitcase": [
        ("who is sitting on a suitcase?", "man"),
        ("what is an old man sitting on?", "suitcase"),
        ("what is an old man doing?", "sit"),
    ],
    "a nurse is talking to a patient child": [
        ("who is talking to a patient child?", "nurse"),
        ("who is a nurse talking to?", "child"),
        ("what is a nurse doing?", "talk"),
    ],
    "a mother hugs her daughter": [
        ("who is hugging her daughter?", "mother"),
        ("who is a mother hugging?", "daughter"),
        ("what is a mother doing?", "hug"),
    ],
    "a juggler is throwing three knives": [
        ("what is throwing three knives?", "juggler"),
        ("what is a juggler throwing?", "knife"),
        ("how many knives is a juggler throwing?", "three"),
        ("what is a juggler doing?", "throw"),
    ],
    "3 children are building a castle in the sand": [
        ("what are 3 children building?", "castle"),
        ("what are 3 children doing?", "build"),
        ("how many children are building a castle?", "three"),
        ("where are 3 children building a castle?", "sand"),
    ],
    "a group of tourists are walking through a market": [
        ("what is walking through a market?", "tourist"),
        ("what are a group of tourists doing?", "walk"),
        ("where are a group of tourists walking?", "market"),
    ],
    "a man and a woman are singing": [
        ("what are a man and a woman doing?", "sing"),
    ],
    "there is a chef chopping vegetables": [
        ("who is chopping vegetables?", "chef"),
        ("what is a chef chopping?", "vegetable"),
        ("what is a chef doing?", "chop"),
    ],
    "man washing his car with a hose": [
        ("who is washing his car?", "man"),
        ("what is the man washing?", "car"),
        ("what is the man doing?", "wash"),
    ],
    "a black and white dog is jumping over a log": [
        ("what is jumping over a log?", "dog"),
        ("what is a black and white dog doing?", "jump"),
        ("what is a black and white dog jumping over?", "log"),
    ],
    "a teacher stands in front of a blackboard": [
        ("who is standing in front of a blackboard?", "teacher"),
        ("what is a teacher standing in front of?", "blackboard"),
        ("what is a teacher doing?", "stand"),
    ],
    "a child folds a piece of paper": [
        ("who is folding a piece of paper?", "child"),
        ("what is a child folding?", "paper"),
        ("what is a child doing?", "fold"),
    ],
    "a man is slowly lifting a heavy box": [
        ("who is lifting a heavy box?", "man"),
        ("what is a man lifting?", "box"),
        ("what is a man doing?", "lift"),
    ],
    "a singer is performing together with a band": [
        ("who is performing with a band?", "singer"),
        ("who is a singer performing with?", "band"),
        ("what is a singer doing?", "perform"),
    ],
    "a dog catches a frisbee in the air": [
        ("what is catching a frisbee?", "dog"),
        ("what is a dog catching?", "frisbee"),
        ("what is a dog doing?", "catch"),
    ],
    "a boy is playing soccer and laughing": [
        ("who is playing soccer?", "boy"),
        ("what is a boy playing?", "soccer"),
        ("what is a boy doing?", "play"),
    ],
    "a woman is doing yoga on the grass while music plays": [
        ("who is doing yoga?", "woman"),
        ("what is a woman doing?", "yoga"),
        ("where is a woman doing yoga?", "grass"),
    ],
    "a girl cleans up": [
        ("who is cleaning up?", "girl"),
        ("what is a girl doing?", "clean"),
    ],
    "a man builds something": [
        ("who is building something?", "man"),
        ("what is a man doing?", "build"),
    ],
    "a climber climbs up a wall": [
        ("what is a climber doing?", "climb"),
        ("what is a climber climbing up?", "wall"),
        ("who is climbing up a wall?", "climber"),
    ],
    "a man in a hat stands on the steps with a book": [
        ("who is standing on the steps?", "man"),
        ("what is a man doing?", "stand"),
        ("where is a man standing?", "steps"),
    ],
    "a baby is lying in a crib": [
        ("who is lying in a crib?", "baby"),
        ("what is a baby lying in?", "crib"),
        ("what is a baby doing?", "lie"),
    ],
    "a guy bends down to tie his shoe": [
        ("who is bending down?", "guy"),
        ("what is a guy doing?", "bend"),
    ],
    "four wrestlers fight in the ring": [
        ("what are four wrestlers doing?", "fight"),
        ("how many wrestlers are fighting?", "four"),
        ("where are four wrestlers fighting?", "ring"),
    ],
    "a parrot is eating from a bowl": [
        ("what is eating from a bowl?", "parrot"),
        ("what is a parrot eating from?", "bowl"),
        ("what is a parrot doing?", "eat"),
    ],
    "a potato makes it s way on a belt": [
        ("what is making its way?", "potato"),
        ("what is a potato doing?", "make"),
    ],
    "a boy rides his brother s bike": [
        ("who is riding his brother's bike?", "boy"),
        ("what is a boy riding?", "bike"),
        ("what is a boy doing?", "ride"),
    ],
    "a player is tackling another player": [
        ("what is a player doing?", "tackle"),
    ],
}
UNREAD = [
    "a dog in a lake",
    "a commercial about coffee",
    "a room is being filmed",
    "they are talking together",
    "someone is cooking pasta",
    "a video shows a man on a horse",
    "the girl is happy",
    "a clip taken from a sitcom",
    "cartoon network",
    "his dog barks",
    "",
    "?!",
    "один мужчина играет",
]


@pytest.mark.parametrize("caption", EXPECTED)
def test_captions_give_the_expected_questions(caption: str) -> None:
    made = [(each.question, each.answer) for each in make_questions(caption)]
    assert sorted(made) == sorted(EXPECTED[caption])
    assert make_questions(caption) == make_questions(caption)


@pytest.mark.parametrize("caption", UNREAD)
def test_other_captions_give_none(caption: str) -> None:
    assert make_questions(caption) == ()


def test_no_question_tells_its_answer() -> None:
    for caption in ("a child slides down a slide", "a cook is cooking", "a dog chases a dog"):
        for made in make_questions(caption):
            words = made.question.rstrip("?").split()
            assert made.answer not in words
            assert made.answer not in {GERUNDS.get(word, word) for word in words}


def test_forms_of_words() -> None:
    forms = {"run": "running", "sit": "sitting", "tie": "tying", "ride": "riding", "see": "seeing"}
    assert all(GERUND_OF.get(base, form) == form for base, form in forms.items())
    for base in ("open", "play", "eat", "mix", "snowboard", "wrestle", "carry", "hit", "ski"):
        assert GERUNDS[GERUND_OF[base]] == base
    assert (GERUND_OF["open"], GERUND_OF["play"], GERUND_OF["mix"]) == ("opening", "playing", "mixing")
    assert (GERUND_OF["hit"], GERUND_OF["ski"], GERUND_OF["carry"]) == ("hitting", "skiing", "carrying")
    assert [THIRD_PERSONS[word] for word in ("carries", "catches", "plays", "does")] == [
        "carry",
        "catch",
        "play",
        "do",
    ]
    plurals = {"dogs": "dog", "babies": "baby", "women": "woman", "boxes": "box", "people": "people"}
    assert {word: singular(word) for word in plurals} == plurals
    assert [singular(word) for word in ("grass", "glasses", "bus", "dog")] == [
        "grass",
        "glasses",
        "bus",
        "dog",
    ]
    assert [is_plural(word) for word in ("dogs", "children", "grass", "dog")] == [True, True, False, False]
