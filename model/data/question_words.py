"""Word lists of the rules that make questions from captions, and the forms of words."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words("a an the this that these those some several many his her its their another other")
POSSESSIVES = _words("his her its their my our your")
_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
#: what a number is called, by its word or its digits
NUMBERS = {word: word for word in _COUNTS} | {str(n): word for n, word in enumerate(_COUNTS, 2)}
GROUPS = _words("group couple pair bunch crowd team pack herd flock")
PREPOSITIONS = _words(
    "in on at of with without from to into onto over under through along across down up near by beside "
    "behind around about against between among inside outside off for after before during past toward "
    "towards above below beneath atop amongst alongside underneath via upon"
)
#: several words that are one preposition; they are read with hyphens
COMPOUNDS = ("in front of", "on top of", "next to", "outside of", "inside of", "out of", "in the middle of")
COMPOUND_PREPOSITIONS = frozenset(compound.replace(" ", "-") for compound in COMPOUNDS)
PREPOSITIONS |= COMPOUND_PREPOSITIONS
COLOURS = _words("black white red blue green yellow brown orange pink purple grey gray tan")
#: nouns whose phrase is about what follows "of", such as a piece of paper
MEASURES = _words(
    "row piece bowl cup glass bottle slice plate bag box can pile stack bit lot kind type pair set sheet "
    "bunch group crowd flight line body pieces bowls cups slices pots pot basket bucket"
)
#: heads of subjects that are pictures, not what they show
MEDIA = _words(
    "view video scene picture clip shot footage image photo close-up slideshow screen movie episode"
)
#: heads that no question asks for
UNASKED = _words(
    "air front back top middle side distance background time way half speed end edge bottom fun turn "
    "turns each left right day night sun wind center centre corner other others order place part one"
)
#: words that end a clause
BREAKS = _words(
    "and or but while as who that which where when whilst because so if than then like , . ; ! ? is are "
    "was were has have had be been being not how why whether s t"
)
ADVERBS = _words(
    "together outside outdoors indoors inside away back backwards forward upside headfirst barefoot alone "
    "still around here there live now also very just high low hard fast up down off out over along about "
    "again well aloud sideways upright upstairs downstairs underwater downhill uphill overhead nearby "
    "apart ahead by"
)
PARTICLES = _words("up down out off away around back over along")
PRONOUNS = _words("he she it they we you i one someone somebody everyone something them him himself herself")

#: heads of subjects and objects that are asked for with "who"
PEOPLE = _words(
    "man woman boy girl person people child kid baby toddler infant guy lady gentleman teenager teen "
    "adult player singer dancer chef cook teacher student worker doctor nurse soldier policeman officer "
    "actor actress reporter host band audience family couple mother father mom dad son daughter brother "
    "sister friend skateboarder skier snowboarder surfer cyclist biker bicyclist runner swimmer climber "
    "hiker athlete cheerleader gymnast wrestler boxer rapper musician guitarist drummer pianist model "
    "bride groom clown cowboy farmer fisherman driver rider skater speaker anchor newscaster comedian "
    "performer artist painter youth crowd group team preteen wakeboarder kayaker jogger pedestrian "
    "referee coach goalie commentator politician president judge scientist mechanic carpenter "
    "photographer interviewer narrator female male"
)

#: heads of phrases that answer "where"
PLACES = _words(
    "kitchen street beach park snow water field grass stage pool road room forest yard lake ocean river "
    "sea mountain hill track court garden gym stadium sidewalk sand woods classroom restaurant office bar "
    "store shop playground city town house bathroom bedroom garage hallway hall studio church school "
    "library market mall airport station subway train bus car boat ship plane airplane helicopter desert "
    "jungle farm barn zoo aquarium lawn meadow backyard pond stream waterfall canyon cliff slope trail "
    "path ramp pier dock harbor bridge highway alley parade rink ring arena auditorium theater theatre "
    "concert club party bathtub bath tub bed couch sofa bench chair table floor ground stairs steps roof "
    "rooftop balcony porch patio driveway puddle mud dirt rock rocks swing slide trampoline fountain "
    "fence wall tree tent cave space countryside racetrack course ice lab laboratory hospital cabin "
    "tunnel crosswalk campsite carnival fair circus casino canoe kayak raft log leaves pavement shore "
    "surf gymnasium lounge lobby cafe salon"
)
#: prepositions that may lead to a place
PLACE_PREPOSITIONS = _words("in on at inside along across down through into near by beside onto")

#: verbs that take an object without a determiner, as in "playing guitar"
BARE_OBJECTS = _words(
    "play ride drink eat make cook sing watch read wear sell chop mix throw cut prepare bake fry grill "
    "boil peel pour blow do perform discuss explain show demonstrate fold apply buy catch chase kick hold "
    "carry use drive add stir slice wash climb build fly paint draw serve teach speak hit shoot shovel "
    "feed pull push describe practice present review herd collect pick spray splash rub put write tell "
    "order"
)
_VERBS = """
act add adjust advertise answer applaud apply approach argue arrange arrive ask assemble assist attack
attempt bake balance bark bat bathe battle beat beg bend bike bite blow board boil bounce bow bowl box braid
break bring brush build bump burn bury buy call camp carry carve cast catch celebrate change chase chat
check cheer chew chop clap clean climb clutch collect color comb commentate compete cook cover crash crawl
crochet cross crouch crush cry cuddle curtsy cut cycle dance debate decorate deliver demonstrate descend
describe dig dip discuss display dive do drag draw dress dribble drift drill drink drive drop dry dunk eat
embrace enjoy enter examine exercise explain explore feed fetch fight fill film fire fish fix flex flip
float fly fold follow fry gallop gather gaze give glide grab greet grill grin grind growl guard guide hammer
hand hang help herd hide hike hit hold hop hug hurdle hurl inflate inspect install interview iron jog juggle
jump kayak kick kiss knead kneel knit knock laugh launch lead lean leap learn lecture lick lie lift light
listen load look make maneuver march marinate measure melt mix mop move mow nap narrate navigate open
operate pack paddle paint parachute park pass paw peek peel perform pet pick pitch place plant play point
pole pose pour practice pray preach prepare present press pull punch purchase push put race raise rap reach
read record rehearse relax repair report rest retrieve review ride rinse roast rock roll row rub run sail
sand saute saw say score scream scrub season sell serve set sew shake share shave shoot shop shout shovel
show shred sign sing sip sit skate skateboard ski skip slap sled sleep slice slide smell smile smoke sneeze
sniff snowboard speak spin splash spray spread sprinkle squat squeeze stack stand stare steam steer step
stir stretch stroke stroll strum stuff surf swallow sweep swim swing tackle take talk tap taste teach tell
throw tie toss touch train travel trim trot try tug tumble turn twirl type unpack unwrap use vacuum visit
vote wade wait wakeboard walk wander warm wash watch water wave weave weld whip whisk whisper wink wipe work
wrap wrestle write yawn yell zoom
"""
_NO_DOUBLING = _words(
    "open enter gather deliver listen visit water offer hammer hurdle color answer travel wander"
)


def _gerund(base: str) -> str:
    if base.endswith("ie"):
        return base[:-2] + "ying"
    if base.endswith("e") and not base.endswith(("ee", "oe", "ye")):
        return base[:-1] + "ing"
    short = re.fullmatch(r"(?:qu|[^aeiou])*[aeiou][^aeiouwxy]", base)
    return base + (base[-1] if short and base not in _NO_DOUBLING else "") + "ing"


def _third_person(base: str) -> str:
    if re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ies"
    return base + ("es" if base.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


VERBS = frozenset(_VERBS.split())
GERUNDS = {_gerund(base): base for base in sorted(VERBS)} | {"laying": "lie", "rollerblading": "rollerblade"}
GERUND_OF = {base: _gerund(base) for base in VERBS} | {"rollerblade": "rollerblading"}
THIRD_PERSONS = {_third_person(base): base for base in VERBS}

_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "people",
    "policemen": "policeman",
    "fishermen": "fisherman",
    "firemen": "fireman",
    "gentlemen": "gentleman",
    "ladies": "lady",
    "babies": "baby",
    "knives": "knife",
    "leaves": "leaf",
    "wolves": "wolf",
    "calves": "calf",
    "teeth": "tooth",
    "feet": "foot",
    "geese": "goose",
    "hooves": "hoof",
    "mice": "mouse",
}
_NO_SINGULAR = _words(
    "glasses pants jeans shorts clothes scissors goggles sunglasses headphones stairs woods cards drums "
    "steps bus gas grass dress class bass tennis chess canvas news series gymnastics yoga moss glass "
    "cross boss octopus christmas lens bagpipes cymbals noodles dishes"
)


def is_plural(noun: str) -> bool:
    """Whether a noun is a plural, by its form."""
    if noun in _IRREGULAR:
        return True
    return len(noun) > 2 and noun.endswith("s") and not noun.endswith("ss") and noun not in _NO_SINGULAR


def singular(noun: str) -> str:
    """The singular of a noun; `people` and words that have none stay as they are."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if not is_plural(noun):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    return noun[:-2] if noun.endswith(("ches", "shes", "xes", "sses", "zzes", "toes")) else noun[:-1]
