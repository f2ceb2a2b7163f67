# SPDX-License-Identifier: MIT
"""The words of the phrasebook, as tables to be read and corrected by people who know French.

Conventions (one English sentence has exactly one French translation):

* "you" is always *tu*, "they" always *ils*; speaker and addressee agree in the masculine.
* English past is *passé composé* for actions and *imparfait* for states (love, know, have, ...);
  "used to" is always *imparfait*.
* Nouns of profession without a feminine of their own keep the masculine ("elle est médecin").
"""

from __future__ import annotations

from dataclasses import dataclass

# English singular, plural | French singular, plural | gender | kinds
NOUNS = """
man, men                | homme, hommes               | m | person adult
woman, women            | femme, femmes               | f | person adult
boy, boys               | garçon, garçons             | m | person
girl, girls             | fille, filles               | f | person
child, children         | enfant, enfants             | m | person own
friend, friends         | ami, amis                   | m | person adult own
neighbour, neighbours   | voisin, voisins             | m | person adult own
teacher, teachers       | professeur, professeurs     | m | person adult own authority
hero, heroes            | héros, héros                | m | person adult
queen, queens           | reine, reines               | f | person adult authority
brother, brothers       | frère, frères               | m | person family own
sister, sisters         | sœur, sœurs                 | f | person family own
uncle, uncles           | oncle, oncles               | m | person adult family own authority
aunt, aunts             | tante, tantes               | f | person adult family own authority
mother, mothers         | mère, mères                 | f | person adult parent own authority
father, fathers         | père, pères                 | m | person adult parent own authority
cat, cats               | chat, chats                 | m | animal pet own drawn
dog, dogs               | chien, chiens               | m | animal pet own drawn
bird, birds             | oiseau, oiseaux             | m | animal pet own drawn
horse, horses           | cheval, chevaux             | m | animal own drawn
cow, cows               | vache, vaches               | f | animal own drawn
mouse, mice             | souris, souris              | f | animal pet drawn
owl, owls               | hibou, hiboux               | m | animal drawn
apple, apples           | pomme, pommes               | f | fruit ripe
orange, oranges         | orange, oranges             | f | fruit
tomato, tomatoes        | tomate, tomates             | f | fruit ripe
egg, eggs               | œuf, œufs                   | m | fruit
cake, cakes             | gâteau, gâteaux             | m | fruit dish
bread, -                | pain, -                     | m | food
cheese, -               | fromage, -                  | m | food
meat, -                 | viande, -                   | f | food
rice, -                 | riz, -                      | m | food dish
soup, -                 | soupe, -                    | f | food dish
salad, -                | salade, -                   | f | food dish
chocolate, -            | chocolat, -                 | m | food
water, -                | eau, -                      | f | drink
milk, -                 | lait, -                     | m | drink
coffee, -               | café, -                     | m | drink dish
tea, -                  | thé, -                      | m | drink dish
wine, -                 | vin, -                      | m | drink
book, books             | livre, livres               | m | text written small own
letter, letters         | lettre, lettres             | f | text written small own
newspaper, newspapers   | journal, journaux           | m | text small own
story, stories          | histoire, histoires         | f | text written
poem, poems             | poème, poèmes               | m | text written
car, cars               | voiture, voitures           | f | thing own dyed washed drawn
house, houses           | maison, maisons             | f | thing own dyed drawn
bicycle, bicycles       | vélo, vélos                 | m | thing own dyed washed
umbrella, umbrellas     | parapluie, parapluies       | m | thing own dyed small
key, keys               | clé, clés                   | f | thing own small
bag, bags               | sac, sacs                   | m | thing own dyed small
gift, gifts             | cadeau, cadeaux             | m | thing small
pen, pens               | stylo, stylos               | m | thing own dyed small
watch, watches          | montre, montres             | f | thing own small broken
glass, glasses          | verre, verres               | m | thing washed broken small
plate, plates           | assiette, assiettes         | f | thing washed broken dyed
flower, flowers         | fleur, fleurs               | f | thing dyed drawn
tree, trees             | arbre, arbres               | m | scenery drawn
door, doors             | porte, portes               | f | opened dyed
window, windows         | fenêtre, fenêtres           | f | opened broken
box, boxes              | boîte, boîtes               | f | thing opened dyed
hat, hats               | chapeau, chapeaux           | m | clothes own dyed small
coat, coats             | manteau, manteaux           | m | clothes own dyed washed
shirt, shirts           | chemise, chemises           | f | clothes own dyed washed
dress, dresses          | robe, robes                 | f | clothes own dyed washed
market, markets         | marché, marchés             | m | place
station, stations       | gare, gares                 | f | place
beach, beaches          | plage, plages               | f | place
restaurant, restaurants | restaurant, restaurants     | m | place
hotel, hotels           | hôtel, hôtels               | m | place
hospital, hospitals     | hôpital, hôpitaux           | m | place
museum, museums         | musée, musées               | m | place
library, libraries      | bibliothèque, bibliothèques | f | place
airport, airports       | aéroport, aéroports         | m | place
school, schools         | école, écoles               | f | place
church, churches        | église, églises             | f | place
office, offices         | bureau, bureaux             | m | place
kitchen, kitchens       | cuisine, cuisines           | f | room
garden, gardens         | jardin, jardins             | m | room
table, tables           | table, tables               | f | top
chair, chairs           | chaise, chaises             | f | top
bed, beds               | lit, lits                   | m | top
"""

# English | masculine singular, plural | feminine singular, plural | masculine before a vowel
#   | place (before or after the noun, - only as a predicate)
ADJECTIVES = """
big | grand, grands | grande, grandes | - | before
small | petit, petits | petite, petites | - | before
beautiful | beau, beaux | belle, belles | bel | before
new | nouveau, nouveaux | nouvelle, nouvelles | nouvel | before
old | vieux, vieux | vieille, vieilles | vieil | before
young | jeune, jeunes | jeune, jeunes | - | before
good | bon, bons | bonne, bonnes | - | before
red | rouge, rouges | rouge, rouges | - | after
black | noir, noirs | noire, noires | - | after
white | blanc, blancs | blanche, blanches | - | after
green | vert, verts | verte, vertes | - | after
blue | bleu, bleus | bleue, bleues | - | after
expensive | cher, chers | chère, chères | - | after
interesting | intéressant, intéressants | intéressante, intéressantes | - | after
sad | triste, tristes | triste, tristes | - | after
strange | étrange, étranges | étrange, étranges | - | after
famous | célèbre, célèbres | célèbre, célèbres | - | after
happy | heureux, heureux | heureuse, heureuses | - | -
tired | fatigué, fatigués | fatiguée, fatiguées | - | -
ready | prêt, prêts | prête, prêtes | - | -
sick | malade, malades | malade, malades | - | -
tall | grand, grands | grande, grandes | - | -
strong | fort, forts | forte, fortes | - | -
kind | gentil, gentils | gentille, gentilles | - | -
proud | fier, fiers | fière, fières | - | -
jealous | jaloux, jaloux | jalouse, jalouses | - | -
serious | sérieux, sérieux | sérieuse, sérieuses | - | -
"""

# Adjective | kinds of noun it is an attribute of | kinds of subject it is a predicate of
ADJECTIVE_USES = """
big | thing animal clothes scenery | thing clothes place
small | thing animal clothes fruit scenery | thing clothes place animal
beautiful | person thing animal clothes text scenery | person thing clothes animal text
new | thing clothes text | -
old | adult animal thing clothes text scenery | adult animal thing clothes
young | person animal | person animal
good | fruit text | fruit food drink text
red | ripe dyed | ripe dyed
black | dyed pet | dyed pet
white | dyed pet | dyed pet
green | ripe dyed | ripe dyed
blue | dyed | dyed
expensive | thing clothes | thing clothes
interesting | text | text
sad | text | text person
strange | text animal thing | text animal
famous | text person | person text
happy | - | person
tired | - | person animal
ready | - | person
sick | - | person animal
tall | - | person
strong | - | person animal
kind | - | person
proud | - | person
jealous | - | person
serious | - | person
"""

# English | masculine singular, plural | feminine singular, plural ("I am a doctor": no article)
PROFESSIONS = """
doctor, doctors   | médecin, médecins     | médecin, médecins
student, students | étudiant, étudiants   | étudiante, étudiantes
singer, singers   | chanteur, chanteurs   | chanteuse, chanteuses
lawyer, lawyers   | avocat, avocats       | avocate, avocates
baker, bakers     | boulanger, boulangers | boulangère, boulangères
"""

# "to be ... " in English, "avoir ..." in French | who can be so
IDIOMS = """
hungry  | faim    | person animal
thirsty | soif    | person animal
cold    | froid   | person animal
sleepy  | sommeil | person
right   | raison  | person
wrong   | tort    | person
afraid  | peur    | person animal
"""

# English base, 3rd person, past (- none) | infinitive | object pattern and kinds | flags
# Patterns: direct (person pronouns too), indirect (pronouns and "à"), things (no pronouns), none.
# Flags: state (past is imparfait), etre (passé composé with être), generic ("I love bread" is
# "j'aime le pain"), definite (no "a"), order (used in the imperative), beast (animals do it too),
# to / at / from (goes with such a place), with ("with him"), where (asked "where ...?"),
# once (not "every day"), kin ("a brother", "two brothers").
VERBS = """
love, loves, loved | aimer | direct person pet food fruit drink | state generic
hate, hates, hated | détester | direct person pet food fruit drink | state generic
know, knows, knew | connaître | direct person | state definite
see, sees, saw | voir | direct person animal thing scenery clothes | beast where
hear, hears, heard | entendre | direct person animal | beast
help, helps, helped | aider | direct person | order
listen to, listens to, listened to | écouter | direct person | order definite
wait for, waits for, waited for | attendre | direct person | order where
look for, looks for, looked for | chercher | direct person pet small clothes | order
look at, looks at, looked at | regarder | direct person animal scenery | order beast
understand, understands, understood | comprendre | direct person | definite
call, calls, called | appeler | direct person pet | order definite
find, finds, found | trouver | direct small clothes pet | once where
forget, forgets, forgot | oublier | direct small clothes | order
follow, follows, followed | suivre | direct person animal | order beast
invite, invites, invited | inviter | direct person | order
protect, protects, protected | protéger | direct person animal | order
speak to, speaks to, spoke to | parler | indirect person | order
answer, answers, answered | répondre | indirect person | order definite
write to, writes to, wrote to | écrire | indirect person | order
obey, obeys, obeyed | obéir | indirect authority | order definite
eat, eats, ate | manger | things fruit food | order with
drink, drinks, drank | boire | things drink | order with
read, reads, - | lire | things text | order
write, writes, wrote | écrire | things written | order
buy, buys, bought | acheter | things fruit food drink text thing clothes | order where
sell, sells, sold | vendre | things fruit food thing clothes text | once where
open, opens, opened | ouvrir | things opened | order
close, closes, closed | fermer | things opened | order
lose, loses, lost | perdre | things small clothes | once where
want, wants, wanted | vouloir | things fruit food drink thing clothes | state
have, has, had | avoir | things thing clothes animal text family | state kin
take, takes, took | prendre | things small fruit clothes | order
choose, chooses, chose | choisir | things thing clothes text fruit | order
wash, washes, washed | laver | things washed | order
draw, draws, drew | dessiner | things drawn | order
prepare, prepares, prepared | préparer | things dish | order
break, breaks, broke | casser | things broken | once
hide, hides, hid | cacher | things small | order where
sleep, sleeps, slept | dormir | none | beast at where
work, works, worked | travailler | none | at with where
sing, sings, sang | chanter | none | at with where
dance, dances, danced | danser | none | with
run, runs, ran | courir | none | beast
walk, walks, walked | marcher | none | with
laugh, laughs, laughed | rire | none | with
cry, cries, cried | pleurer | none | -
travel, travels, travelled | voyager | none | with
go, goes, went | aller | place | etre to with where
come, comes, came | venir | none | etre from with
arrive, arrives, arrived | arriver | none | etre at with
leave, leaves, left | partir | none | etre with
stay, stays, stayed | rester | none | etre at with where
fall, falls, fell | tomber | none | etre beast
"""

# Verbs that are not regular -er verbs: infinitive | present: je tu il nous ils | participle
#   | future stem. The imparfait follows from "nous".
IRREGULAR = """
connaître | connais connais connaît connaissons connaissent | connu | connaîtr
voir | vois vois voit voyons voient | vu | verr
entendre | entends entends entend entendons entendent | entendu | entendr
attendre | attends attends attend attendons attendent | attendu | attendr
comprendre | comprends comprends comprend comprenons comprennent | compris | comprendr
appeler | appelle appelles appelle appelons appellent | appelé | appeller
suivre | suis suis suit suivons suivent | suivi | suivr
protéger | protège protèges protège protégeons protègent | protégé | protéger
répondre | réponds réponds répond répondons répondent | répondu | répondr
écrire | écris écris écrit écrivons écrivent | écrit | écrir
obéir | obéis obéis obéit obéissons obéissent | obéi | obéir
boire | bois bois boit buvons boivent | bu | boir
lire | lis lis lit lisons lisent | lu | lir
acheter | achète achètes achète achetons achètent | acheté | achèter
vendre | vends vends vend vendons vendent | vendu | vendr
ouvrir | ouvre ouvres ouvre ouvrons ouvrent | ouvert | ouvrir
perdre | perds perds perd perdons perdent | perdu | perdr
vouloir | veux veux veut voulons veulent | voulu | voudr
avoir | ai as a avons ont | eu | aur
prendre | prends prends prend prenons prennent | pris | prendr
choisir | choisis choisis choisit choisissons choisissent | choisi | choisir
dormir | dors dors dort dormons dorment | dormi | dormir
courir | cours cours court courons courent | couru | courr
rire | ris ris rit rions rient | ri | rir
aller | vais vas va allons vont | allé | ir
venir | viens viens vient venons viennent | venu | viendr
partir | pars pars part partons partent | parti | partir
"""

NUMBERS = {"two": "deux", "three": "trois", "four": "quatre", "five": "cinq", "six": "six"}

# A word that starts with a vowel letter or h elides what stands before it, but not before these.
H_ASPIRE = frozenset({"hibou", "hiboux", "héros"})


@dataclass(frozen=True)
class Noun:
    english: tuple[str, str]  # singular, plural ("-" for what cannot be counted)
    french: tuple[str, str]
    gender: str  # "m" or "f"
    kinds: frozenset[str]

    @property
    def countable(self) -> bool:
        return self.english[1] != "-"


@dataclass(frozen=True)
class Adjective:
    english: str
    masculine: tuple[str, str]
    feminine: tuple[str, str]
    before_vowel: str | None  # masculine singular before a vowel: bel, nouvel, vieil
    place: str  # "before", "after" or "-"
    attribute_of: frozenset[str]
    predicate_of: frozenset[str]

    def form(self, gender: str, plural: bool) -> str:
        return (self.feminine if gender == "f" else self.masculine)[plural]


@dataclass(frozen=True)
class Profession:
    english: tuple[str, str]
    masculine: tuple[str, str]
    feminine: tuple[str, str]


@dataclass(frozen=True)
class Idiom:
    english: str
    french: str
    said_of: frozenset[str]


@dataclass(frozen=True)
class Verb:
    base: str
    third: str
    past: str | None
    infinitive: str
    present: tuple[str, ...]  # je tu il nous ils
    participle: str
    future_stem: str
    pattern: str  # direct, indirect, things, place or none
    objects: frozenset[str]
    flags: frozenset[str]


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _pair(cell: str) -> tuple[str, str]:
    singular, plural = (form.strip() for form in cell.split(","))
    return singular, plural


def _kinds(cell: str) -> frozenset[str]:
    return frozenset(cell.split()) - {"-"}


def _regular(infinitive: str) -> tuple[tuple[str, ...], str, str]:
    """Present, participle and future stem of a regular verb in -er (nous mangeons keeps its e)."""
    stem = infinitive.removesuffix("er")
    ending = "eons" if stem.endswith("g") else "ons"
    present = (stem + "e", stem + "es", stem + "e", stem + ending, stem + "ent")
    return present, stem + "é", infinitive


def _verb(row: list[str]) -> Verb:
    english, infinitive, objects, flags = row
    present, participle, future = _irregular.get(infinitive) or _regular(infinitive)
    base, third, past = (form.strip() for form in english.split(","))
    pattern, *kinds = objects.split()
    return Verb(
        base, third, None if past == "-" else past, infinitive, present, participle, future,
        pattern, frozenset(kinds), _kinds(flags),
    )  # fmt: skip


def _adjective(row: list[str]) -> Adjective:
    english, masculine, feminine, vowel, place = row
    attribute, predicate = _uses[english]
    return Adjective(
        english, _pair(masculine), _pair(feminine), None if vowel == "-" else vowel, place,
        _kinds(attribute), _kinds(predicate),
    )  # fmt: skip


_uses = {row[0]: (row[1], row[2]) for row in _rows(ADJECTIVE_USES)}
_irregular = {row[0]: (tuple(row[1].split()), row[2], row[3]) for row in _rows(IRREGULAR)}
nouns = [Noun(_pair(e), _pair(f), g, _kinds(k)) for e, f, g, k in _rows(NOUNS)]
adjectives = [_adjective(row) for row in _rows(ADJECTIVES)]
professions = [Profession(_pair(e), _pair(m), _pair(f)) for e, m, f in _rows(PROFESSIONS)]
idioms = [Idiom(e, f, _kinds(k)) for e, f, k in _rows(IDIOMS)]
verbs = [_verb(row) for row in _rows(VERBS)]
