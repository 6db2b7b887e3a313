"""Words for the embedded model's training text: subjects by family, and what is said about them."""

from __future__ import annotations

# Each family: (things, rare things, activities). The rare things feed the in-breadth rewrites.
FAMILIES: dict[str, tuple[str, str, str]] = {
    "cooking": (
        "bread, soup, rice, pasta, pizza, salad, cake, breakfast, dinner, lunch, vegetables, tomato sauce, chicken, fish, "
        "eggs, cheese, a recipe, a meal, the kitchen, spices, fruit, potatoes, pancakes, chocolate cookies, beans, olive oil, "
        "a sandwich, a stew, lentils, noodles, onions, garlic, butter, flour, sugar, salt, leftovers, an oven, a dish",
        "sourdough rye, kimchi, miso broth, saffron risotto, injera, preserved lemons, tempeh, buckwheat crepes, dashi, "
        "smoked paprika, quince jelly, tamarind paste, wild garlic pesto, cardamom buns, pickled beetroot",
        "cook a family meal, bake a loaf of bread, plan a weekly menu, season a soup, chop vegetables safely, store fresh food",
    ),
    "health": (
        "sleep, exercise, a healthy diet, stress, running, yoga, a balanced meal, muscles, the heart, walking, water, "
        "vitamins, a workout, posture, a cold, headaches, stretching, weight, fitness, a doctor, habits, breathing, energy, "
        "meditation, back pain, protein, blood pressure, a gym, a routine, the body, mental health, allergies",
        "circadian rhythm, lymphatic massage, vagus nerve exercises, altitude training, fascia stretching, gait analysis, "
        "cold-water swimming, sleep apnea, electrolyte balance, bone density, tendon recovery, eye strain",
        "fall asleep faster, start a running routine, lower daily stress, stay fit at a desk, recover from a workout",
    ),
    "travel": (
        "a trip, a city, a hotel, a beach, a museum, a train, an airport, luggage, a map, a weekend, mountains, a road trip, "
        "a passport, a guide, tourists, an island, a village, a flight, a backpack, camping, a vacation, a bus, a ticket, "
        "a castle, a national park, the coast, a journey, a suitcase, a family holiday, sightseeing",
        "a sleeper train, a desert caravan, a fjord ferry, a pilgrim trail, a lighthouse stay, a canal barge, a salt flat, "
        "a cave monastery, a glacier hike, a floating market, a border crossing on foot, a cargo ship voyage",
        "pack a light suitcase, plan a weekend trip, find a cheap flight, visit a new city, travel with children",
    ),
    "gardening": (
        "a garden, roses, tomatoes, soil, seeds, compost, a tree, flowers, herbs, a lawn, plants, water, weeds, sunlight, "
        "a balcony, pots, basil, bees, insects, vegetables, a greenhouse, spring, leaves, roots, pests, mint, fertilizer, "
        "a fence, a rose bush, houseplants, a harvest, a flower bed, shade",
        "a moss garden, espaliered pears, heirloom gourds, mycorrhizal fungi, a rain garden, bog plants, a seed vault, "
        "carnivorous pitcher plants, a sunken greenhouse, alpine troughs, companion planting, a wildflower roof",
        "grow tomatoes on a balcony, prepare the soil, water house plants, start a compost heap, protect young plants",
    ),
    "money": (
        "money, a budget, savings, a bank, a loan, interest, taxes, a salary, rent, bills, a credit card, debt, expenses, "
        "an emergency fund, insurance, a pension, investments, prices, inflation, a small business, customers, profit, a job, "
        "a household, groceries, a mortgage, a discount, shopping, a receipt, a bank account, costs, stocks",
        "a tontine, compound annuities, barter clubs, municipal bonds, a rotating savings circle, currency hedging, "
        "a cooperative bank, royalty income, catastrophe insurance, escrow accounts, time banking, tax-loss harvesting",
        "save money each month, pay off a debt, plan a household budget, compare two loans, start a small business",
    ),
    "learning": (
        "school, students, a teacher, homework, an exam, reading, a lesson, a language, vocabulary, grammar, an essay, "
        "memory, notes, a classroom, a library, mathematics, science, a project, a speech, a presentation, spelling, "
        "a course, a university, a study plan, questions, learning, a textbook, a quiz, a paragraph, a sentence, group work",
        "spaced repetition, a Socratic seminar, a memory palace, peer instruction, sign language poetry, a field notebook, "
        "a flipped classroom, mirror writing, oral examinations, a constructed language, shorthand, interleaved practice",
        "prepare for an exam, take better notes, learn a new language, write a short essay, remember new words",
    ),
    "history": (
        "a war, a king, a queen, an empire, the past, a revolution, ancient Rome, Egypt, the Middle Ages, a battle, "
        "a treaty, a civilization, an invention, the printing press, trade, ships, explorers, a temple, pyramids, a government, "
        "democracy, a historian, an archive, a century, the industrial revolution, a monument, a city wall, a legend, railways",
        "the Hanseatic League, quipu records, the bronze age collapse, papal conclaves, the tulip mania, Polynesian navigation, "
        "medieval guild law, the silk road caravans, the Antikythera mechanism, wampum belts, the year without a summer",
        "explain the causes of a war, describe life in an ancient city, compare two empires, summarize a century",
    ),
    "culture": (
        "music, a song, a guitar, a piano, a book, a novel, a poem, a story, a film, a painting, a concert, a band, lyrics, "
        "rhythm, a character, a plot, a dance, theater, an artist, a melody, a chapter, a writer, a fairy tale, jazz, drums, "
        "a violin, an audience, an album, a choir, an orchestra, a short story, a genre, a review, a library, a hero",
        "a villanelle, shadow puppetry, throat singing, gamelan, a fugue, an epistolary novel, concrete poetry, a theremin, "
        "a madrigal, kabuki, a sestina, a frame story, microtonal tuning, a graphic score, a picaresque tale",
        "write a short poem, learn the guitar, review a novel, describe a painting, choose a book for a friend",
    ),
    "animals": (
        "a dog, a cat, birds, a horse, fish, bees, elephants, a puppy, a kitten, a farm, wild animals, a zoo, lions, "
        "wolves, whales, insects, butterflies, a rabbit, a hamster, cows, sheep, a pet, feathers, a nest, food, a forest, "
        "the ocean, a species, penguins, bears, an aquarium, a parrot, a turtle, a veterinarian, a walk, habitats",
        "axolotls, pangolins, mantis shrimp, leafcutter ants, barn owls, tardigrades, lungfish, weaver birds, okapis, "
        "cuttlefish, flying foxes, naked mole rats, bowerbirds, cleaner wrasse, honeyguides",
        "train a young dog, care for a cat, watch birds in a park, feed a horse, keep an aquarium clean",
    ),
    "technology": (
        "a computer, the internet, a phone, a website, an app, email, a password, a robot, artificial intelligence, data, "
        "a camera, a battery, a screen, social media, a video, a search engine, a program, a network, a laptop, software, "
        "a file, cloud storage, a keyboard, an online shop, privacy, a message, a printer, electric cars, solar panels, "
        "security, a tablet, a browser, a game, a smart home, a virus, wifi",
        "a mesh network, homomorphic encryption, a neuromorphic chip, e-ink displays, a Faraday cage, federated learning, "
        "a quantum key, satellite swarms, error-correcting codes, a vector clock, haptic gloves, edge inference",
        "choose a strong password, back up a phone, build a simple website, protect privacy online, fix a slow computer",
    ),
    "environment": (
        "the weather, climate, a river, rain, the ocean, pollution, recycling, energy, plastic, forests, the sun, wind, "
        "a storm, the moon, planets, stars, a volcano, an earthquake, air, electricity, nature, snow, temperature, waste, "
        "a lake, gravity, light, sound, an atom, the earth, a rainbow, clouds, seasons",
        "permafrost, ball lightning, a peat bog, ocean gyres, kelp forests, cloud seeding, a karst spring, tidal lagoons, "
        "noctilucent clouds, biochar, a seiche, sky glow",
        "save energy at home, reduce plastic waste, explain the water cycle, observe the stars, prepare for a storm",
    ),
    "life": (
        "a friend, a family, a party, a birthday, a gift, a letter, a team, a meeting, work, a job interview, a manager, "
        "an office, a neighbor, a house, a room, clothes, furniture, a conversation, an apology, a hobby, time, a goal, "
        "a decision, kindness, teamwork, a leader, an invitation, a weekend, children, parents, a game, football, a product, "
        "a company, an advertisement, a resume, a slogan, success, happiness, a list, an idea, a plan, a problem",
        "a silent retreat, a family council, a repair cafe, a letter to the future, a house swap, a gratitude jar, "
        "a neighborhood tool library, a naming ceremony, a walking meeting, a reverse mentor, an honest obituary",
        "organize a birthday party, write a thank-you letter, prepare for a job interview, manage time at work",
    ),
}

THINGS = {family: tuple(part.strip() for part in parts[0].split(",")) for family, parts in FAMILIES.items()}
RARE = {family: tuple(part.strip() for part in parts[1].split(",")) for family, parts in FAMILIES.items()}
ACTIVITIES = {family: tuple(part.strip() for part in parts[2].split(",")) for family, parts in FAMILIES.items()}

ADJECTIVES = (
    "short simple clear funny polite detailed careful modern small large new old healthy cheap quick creative "
    "formal friendly practical surprising useful common local famous early late strong quiet bright warm cold"
).split()

NAMES = (
    "Anna Ben Carla Daniel Emma Felix Grace Hugo Ines Jonas Kira Leo Mia Noah Olga Paul Rosa Sam Tara Victor Maria "
    "James Lily Tom Sara Jack Nina Oscar Ruth Ivan Lena Omar Priya Ken Zoe Luis Amir Clara Maya Eli Natalia Betty "
    "Julie Mark Randy Alexis Tina Jasper Joy Weng Albert Ken Peter Susan Kevin Alice Bob John Mary"
).split()

ITEMS = (
    "apples oranges books pencils cookies marbles stickers tickets eggs cakes flowers toys coins stamps cards boxes "
    "bottles balloons chairs pages shells candies muffins oranges notebooks crayons cupcakes pens bricks bags clips "
    "lemons sandwiches photos beads tomatoes bananas letters shirts puzzles plants fish birds cars bikes miles"
).split()

PLACES = (
    "school, the market, a shop, the park, a farm, the library, a bakery, the fair, the beach, a garden, the zoo"
).split(", ")

PEOPLE = (
    "nurse, teacher, farmer, baker, student, engineer, retired pilot, bus driver, carpenter, young parent, "
    "violinist, beginner, shop owner, librarian, gardener, night-shift worker, athlete, tour guide, small team, "
    "ten-year-old child"
).split(", ")

CITIES = (
    "Lisbon Oslo Nairobi Lima Kyoto Toronto Cairo Prague Hanoi Dublin Austin Quito Accra Turin Bergen Osaka Porto Leeds"
).split()

LANGUAGES = ("Python JavaScript Java C++ SQL Bash HTML CSS TypeScript Go Rust PHP Ruby C# Swift Kotlin R").split()

# Task, a matching Python solution.
CODE_TASKS: tuple[tuple[str, str], ...] = (
    ("add two numbers", "def add(a, b):\n    return a + b"),
    ("reverse a string", "def reverse(text):\n    return text[::-1]"),
    ("find the largest number in a list", "def largest(values):\n    return max(values)"),
    ("find the smallest element of an array", "def smallest(values):\n    return min(values)"),
    (
        "check if a number is prime",
        "def is_prime(n):\n    return n > 1 and all(n % i for i in range(2, int(n ** 0.5) + 1))",
    ),
    ("check if a word is a palindrome", "def is_palindrome(word):\n    return word == word[::-1]"),
    ("calculate the factorial of a number", "def factorial(n):\n    return 1 if n < 2 else n * factorial(n - 1)"),
    ("compute the sum of a list of integers", "def total(values):\n    return sum(values)"),
    ("count the vowels in a sentence", "def vowels(text):\n    return sum(c in 'aeiou' for c in text.lower())"),
    ("sort a list of names alphabetically", "def sort_names(names):\n    return sorted(names)"),
    ("remove duplicates from a list", "def unique(values):\n    return list(dict.fromkeys(values))"),
    ("merge two dictionaries", "def merge(a, b):\n    return {**a, **b}"),
    (
        "count the words in a text file",
        "def count_words(path):\n    with open(path) as f:\n        return len(f.read().split())",
    ),
    ("print the first ten Fibonacci numbers", "a, b = 0, 1\nfor _ in range(10):\n    print(a)\n    a, b = b, a + b"),
    ("convert Celsius to Fahrenheit", "def to_fahrenheit(c):\n    return c * 9 / 5 + 32"),
    ("find the average of the values in an array", "def average(values):\n    return sum(values) / len(values)"),
    ("check if two strings are anagrams", "def anagrams(a, b):\n    return sorted(a) == sorted(b)"),
    ("generate a random password", "import secrets\n\ndef password(n=12):\n    return secrets.token_urlsafe(n)[:n]"),
    (
        "parse a CSV file into rows",
        "import csv\n\ndef rows(path):\n    with open(path) as f:\n        return list(csv.reader(f))",
    ),
    (
        "read a JSON file and print its keys",
        "import json\n\nwith open('data.json') as f:\n    print(list(json.load(f)))",
    ),
    ("flatten a nested list", "def flatten(rows):\n    return [x for row in rows for x in row]"),
    ("find the common elements of two lists", "def common(a, b):\n    return sorted(set(a) & set(b))"),
    ("implement a stack class", "class Stack(list):\n    def push(self, x):\n        self.append(x)"),
    (
        "implement binary search on a sorted array",
        "import bisect\n\ndef search(values, x):\n    i = bisect.bisect_left(values, x)\n    return i if i < len(values) and values[i] == x else -1",
    ),
    ("capitalize the first letter of each word", "def title(text):\n    return text.title()"),
    ("compute the greatest common divisor of two integers", "import math\n\ndef gcd(a, b):\n    return math.gcd(a, b)"),
    ("filter the even numbers from a list", "def evens(values):\n    return [v for v in values if v % 2 == 0]"),
    ("replace all spaces in a string with underscores", "def underscore(text):\n    return text.replace(' ', '_')"),
    (
        "count how often each character occurs",
        "from collections import Counter\n\ndef counts(text):\n    return Counter(text)",
    ),
    ("create a class for a bank account", "class Account:\n    def __init__(self):\n        self.balance = 0"),
    (
        "validate an email address",
        "import re\n\ndef valid(email):\n    return bool(re.fullmatch(r'[^@ ]+@[^@ ]+', email))",
    ),
    ("square every number of a list", "def squares(values):\n    return [v * v for v in values]"),
    ("print a table of the numbers from 1 to 10", "for i in range(1, 11):\n    print(i)"),
    ("return the current date and time", "from datetime import datetime\n\ndef now():\n    return datetime.now()"),
    ("transpose a matrix", "def transpose(m):\n    return [list(r) for r in zip(*m)]"),
)

# More code tasks, without a solution: they only feed the evolving prompts.
MORE_CODE_TASKS = (
    "select all customers from a table, join two tables on a key, create a responsive navigation bar, style a "
    "button, fetch data from an API, list all files in a directory, loop over all elements in the given array, "
    "build a login form, delete rows older than a month, group the orders by month, draw a circle, connect to a "
    "database, show an alert message, convert a string to a date, download a web page, rename many files, multiply "
    "two matrices, traverse a binary tree, detect a cycle in a linked list, cache the results of a function, log "
    "errors to a file, send an email, rewrite the loop as a list comprehension, fix the bug in the code, optimize "
    "the query, refactor the function, explain what the snippet does, find the median of an array, split a string "
    "at commas, rotate an array, count the rows of a table, swap two variables, get the length of a string, store "
    "the values in a hash map"
).split(", ")

# Common English words, for the tokenizer and for parents that are strings of unrelated words.
COMMON = (
    "able about above accept across act action active actually add address adult advice affect afraid after again "
    "against age agree ahead allow almost alone along already also although always among amount angry animal "
    "another answer anyone anything appear apply area argue arm around arrive ask asleep attack attention average "
    "avoid away baby back bad bag bake balance ball bank bar base basic bath beautiful because become bed before "
    "begin behavior behind believe below bend benefit best better between beyond big bill bird bite black blood "
    "blue board boat body boil bone born borrow both bottle bottom box boy branch brave break breathe bridge brief "
    "bring brother brown brush build building burn busy button buy calculate call calm camp capital car care "
    "careful carry case catch cause center century certain chain chair chance change charge chart chase check chest "
    "child choice choose circle class clean clear climb clock close cloth coat code coffee collect collection color "
    "column combine come comfort command common compare complete complex concern condition connect consider contain "
    "continue control convince cook cool copy corner correct cost count country couple course cover create cross "
    "crowd cup current curve customer cut cycle daily damage dance danger dark date daughter dead deal dear death "
    "decide deep define degree delay deliver demand depend describe desert design desk detail develop device die "
    "differ difficult dig digit direct dirty discover discuss dish display distance divide do double doubt down "
    "draw dream dress drink drive drop dry due dust each early earn ease east easy eat edge edit effect effort egg "
    "either else empty encourage end enemy engine enjoy enough enter entire environment equal error escape "
    "especially essay estimate even evening event ever every evidence exact example excellent except exchange "
    "excite excuse exist expect expensive experience explain express extra eye face fact factor fail fair fall "
    "false family famous far fast fat father favorite fear feature feed feel feet few field fight figure fill film "
    "final find fine finger finish fire first fit fix flag flat float floor flow fly fold folder follow food foot "
    "force forget form formal forward found fraction frame free freeze fresh friend front full function fun future "
    "gain game gather general gentle get girl give glad glass go goal gold good grade grain grand grass gray great "
    "green ground group grow guess guide habit hair half hall hand handle happen happy hard hat have head health "
    "hear heat heavy height help here hide high hill hire history hit hold hole holiday home honest hope horse "
    "hospital hot hour house huge human hundred hurry hurt ice idea identify image imagine important improve inch "
    "include income increase index influence inform input inside instead interest into introduce invent invite iron "
    "island item join joke judge jump just keep key kick kid kind kitchen knee know label lack lake land large last "
    "late later laugh law lay layer lead leaf learn least leave left leg length less let letter level lie life lift "
    "light like limit line link lip liquid list listen little live load local lock lonely long look loop lose loss "
    "lot loud love low luck lunch machine main maintain make male man manage many march mark market match material "
    "matter maximum maybe meal mean measure meat medicine medium meet member memory mention message metal method "
    "middle might mild milk million mind minimum minute mirror miss mistake mix mobile mode modern moment month "
    "mood more morning most mother motion mouth move movie much multiply muscle must narrow nation native natural "
    "near necessary neck need negative neighbor nerve never next nice night noise none north nose note nothing "
    "notice number object observe obtain occur odd offer office often old once only open opinion option orange "
    "order organize origin other output outside over own owner pack paid pain paint pair paper parent part partner "
    "pass past path pattern pause pay peace people percent perfect perform perhaps period person phrase pick "
    "picture piece place plain plan plant plate play please plus pocket point policy poor popular position positive "
    "possible post pot pound pour power practice prefer prepare present press pretty prevent price print prize "
    "problem process produce product program promise proper protect prove provide pull pupil purpose push put "
    "quality quarter question quick quiet quite race radio raise range rare rate rather reach react read ready real "
    "reason receive recent recipe record red reduce refer reflect region regular relate relax release remain "
    "remember remind remove repair repeat replace reply report request require rest result return reverse reward "
    "rhyme rich ride right ring rise risk road rock role roll roof root rope rough round row rule run sad safe sail "
    "sale salt same sand save say scale scene schedule score screen sea search season seat second secret section "
    "see seem select sell send sense sentence separate serious serve service set settle several shade shake shape "
    "share sharp sheet shell shift shine ship shirt shoe short shoulder shout show shut sick side sight sign signal "
    "silent silver similar simple since sing single sister sit size skill skin sky sleep slide slip slow small "
    "smart smell smile smooth snow social soft soil solid solve some son soon sort soul source south space speak "
    "special speed spell spend spot spread square stage stand star start state station stay steam steel step stick "
    "still stone stop store storm straight strange street stretch string strong structure style subject substance "
    "success such sudden suffer suggest suit sum summer supply support suppose sure surface sweet swim switch "
    "symbol system table tail take talk tall task taste teach team tear tell ten tend term test text thank theory "
    "thick thin thing think third though thought thousand throw tie tight time tiny tip tire title today together "
    "tomorrow tone tool top total touch tour toward tower track train translate transport trap treat trick trip "
    "trouble true trust try turn twice type under understand unit until upper use usual value variable various verb "
    "very view visit visitor voice volume vote wait wake wall want warm wash waste watch wave weak wear weather "
    "week weigh weight welcome west wet wheel whether which while whisper white whole wide wild win window winter "
    "wire wise wish within without woman wonder wood word work world worry worth write wrong yard year yellow "
    "yesterday yet young zero "
).split()
