"""Worked examples for the evolving methods: (given, evolved) pairs by domain and method, all written for this package.

Each evolved text adds 10 to 20 words (the paper's limit), and what it adds belongs to its own subject, so that a small
model that copies an addition into another subject can be noticed.
"""

from __future__ import annotations

Pairs = tuple[tuple[str, str], ...]

_GENERAL: dict[str, Pairs] = {
    "constraint": (
        (
            "Write a poem about the sea.",
            "Write a poem about the sea in four lines, in which the word water does not occur and the last line is a question.",
        ),
        (
            "Suggest three ways to save electricity at home.",
            "Suggest three ways to save electricity at home that cost nothing and that a family with small children can keep up.",
        ),
        (
            "Explain how vaccines work.",
            "Explain how vaccines work in at most six sentences, using a comparison with a school and naming one side effect.",
        ),
    ),
    "deepen": (
        (
            "Why do leaves change colour in autumn?",
            "Why do leaves change colour in autumn, why do some trees turn red and others yellow, and what does the tree gain?",
        ),
        (
            "Describe how a bank works.",
            "Describe how a bank works, how it earns money from loans, and what happens when many customers withdraw at once.",
        ),
        (
            "Give tips for a job interview.",
            "Give tips for a job interview, explain what the interviewer learns from each, and say which matter most for a first job.",
        ),
    ),
    "concretize": (
        (
            "Write a letter to a company.",
            "Write a letter to a furniture shop in Leeds that delivered an oak table with a broken leg two weeks late.",
        ),
        (
            "Describe a festival.",
            "Describe the lantern festival of a fishing village in Vietnam, from the first boats at dusk to the songs at midnight.",
        ),
        (
            "How can people protect the environment?",
            "How can a family of four in a rented city flat protect the environment by halving its plastic waste within a year?",
        ),
    ),
    "reasoning": (
        (
            "Which is better for a long trip, a train or a car?",
            "Which is better for a trip of 600 km, a train or a car, if you compare cost, time and comfort before you decide?",
        ),
        (
            "Plan a birthday party.",
            "Plan a birthday party by listing what the guests need, setting a budget for each item, and deriving the best order of events.",
        ),
        (
            "Is it a good idea to work from home?",
            "Is it a good idea to work from home, once three advantages are weighed against three drawbacks, and for whom?",
        ),
    ),
    "breadth": (
        ("Write a poem about the sea.", "Write a haiku about a salt marsh at low tide."),
        ("Explain how vaccines work.", "Explain how antivenom is made from the blood of horses."),
        ("List five popular sports.", "List five board games that were played in ancient Egypt or Rome."),
    ),
}

_CODE: dict[str, Pairs] = {
    "constraint": (
        (
            "Write a Python function that reverses a string.",
            "Write a Python function that reverses a string without slicing or reversed(), and that leaves digits in their places.",
        ),
        (
            "Create an HTML page with a contact form.",
            "Create an HTML page with a contact form whose e-mail field is required and whose labels are tied to their inputs.",
        ),
        (
            "Write a SQL query that lists all customers.",
            "Write a SQL query that lists all customers with more than two orders in 2023, sorted by the sum of their orders.",
        ),
    ),
    "deepen": (
        (
            "Write a program that reads a text file.",
            "Write a program that reads a text file, reports a missing file or a wrong encoding, and counts words and lines.",
        ),
        (
            "Explain what a hash table is.",
            "Explain what a hash table is, how collisions are resolved, and when its look-ups become slower than those of a tree.",
        ),
        (
            "Implement a stack in Java.",
            "Implement a stack in Java with push, pop and peek, for any element type, and discuss the cost of each operation.",
        ),
    ),
    "concretize": (
        (
            "Write a function that checks a password.",
            "Write a function that checks that a password has 12 to 64 characters, a digit, and no part of the user's name.",
        ),
        (
            "Generate a random number in JavaScript.",
            "Generate a random even number from 10 to 98 in JavaScript and show it in the page's element with the id result.",
        ),
        (
            "Write a query that finds old records.",
            "Write a PostgreSQL query that finds the rows of the table invoices whose due_date is more than 90 days ago.",
        ),
    ),
    "reasoning": (
        (
            "Find the largest number in a list with Python.",
            "Find the second largest distinct number in a list with Python in one pass, and explain why one pass is enough.",
        ),
        (
            "Write a script that renames files.",
            "Write a script that renames files by date, which first collects the new names, then detects clashes, and renames only at the end.",
        ),
        (
            "Sort an array of numbers in C.",
            "Sort an array of numbers in C, choose the algorithm by the array's length, and justify the limit that you chose.",
        ),
    ),
    "breadth": (
        (
            "Write a Python function that reverses a string.",
            "Write a Python function that finds the longest run of one letter in a string.",
        ),
        (
            "Create an HTML page with a contact form.",
            "Create an HTML page with a seating plan on which a click marks a seat as taken.",
        ),
        ("Sort an array of numbers in C.", "Rotate a square matrix by ninety degrees in place in C."),
    ),
}

_MATH: dict[str, Pairs] = {
    "constraint": (
        (
            "Tom has 12 apples and gives 4 to his sister. How many apples does Tom have left?",
            "Tom has 12 apples and gives 4 to his sister. Then he eats half of the apples that he has left. How many apples does "
            "Tom have left?",
        ),
        (
            "A ticket costs $8. Mia buys 5 tickets. How much does she pay?",
            "A ticket costs $8, and every ticket after the third one is $2 cheaper. Mia buys 5 tickets. How much does she pay?",
        ),
        (
            "A bus drives 60 km per hour. How far does it drive in 3 hours?",
            "A bus drives 60 km per hour, but it stands still for 30 minutes on the way. How far does it drive in 3 hours?",
        ),
    ),
    "deepen": (
        (
            "Tom has 12 apples and gives 4 to his sister. How many apples does Tom have left?",
            "Tom has 12 apples and gives 4 to his sister. How many apples does Tom have left, and how many times as many as his "
            "sister got is that?",
        ),
        (
            "A ticket costs $8. Mia buys 5 tickets. How much does she pay?",
            "A ticket costs $8. Mia buys 5 tickets. How much does she pay, and how many more tickets could she buy if she has $100?",
        ),
        (
            "A bus drives 60 km per hour. How far does it drive in 3 hours?",
            "A bus drives 60 km per hour. How far does it drive in 3 hours, and how many litres of fuel does it need at 25 litres "
            "for every 100 km?",
        ),
    ),
    "concretize": (
        (
            "A shop sells pens in boxes of 10. It sells 7 boxes. How many pens are sold?",
            "A stationery shop in Porto sells fountain pens in boxes of 10. It sells 7 boxes on Monday and 5 boxes on Tuesday. How "
            "many pens are sold?",
        ),
        (
            "A ticket costs $8. Mia buys 5 tickets. How much does she pay?",
            "A ticket to the aquarium costs $8. Mia buys 5 tickets for her cousins and a map for $3. How much does she pay?",
        ),
        (
            "A worker earns $15 per hour and works 8 hours. How much does the worker earn?",
            "A gardener earns $15 per hour and works 8 hours, of which the last 2 hours are paid double. How much does the gardener "
            "earn?",
        ),
    ),
    "reasoning": (
        (
            "A shop sells pens in boxes of 10. It sells 7 boxes. How many pens are sold?",
            "A shop sells pens in boxes of 10. It sells 7 boxes and then twice as many boxes as before. How many pens are sold? "
            "Find the number of boxes first.",
        ),
        (
            "A worker earns $15 per hour and works 8 hours. How much does the worker earn?",
            "A worker earns $15 per hour and works 8 hours. One fifth goes to taxes, then $20 to food. How much is left? Show each "
            "step.",
        ),
        (
            "A bus drives 60 km per hour. How far does it drive in 3 hours?",
            "A bus drives 60 km per hour. How far does it drive in 3 hours if it goes at half of that speed during the last hour? "
            "Work out both parts.",
        ),
    ),
    "breadth": (
        (
            "A ticket costs $8. Mia buys 5 tickets. How much does she pay?",
            "A beekeeper fills 9 jars from each of her 4 hives and drops 3 jars. How many jars are left?",
        ),
        (
            "A bus drives 60 km per hour. How far does it drive in 3 hours?",
            "A glacier moves 15 cm per day. After how many days has it moved 6 m?",
        ),
        (
            "Tom has 12 apples and gives 4 to his sister. How many apples does Tom have left?",
            "A library of 240 scrolls lends out one eighth of them. How many scrolls stay on the shelves?",
        ),
    ),
}

EXAMPLES: dict[str, dict[str, Pairs]] = {"general": _GENERAL, "code": _CODE, "math": _MATH}
