"""Worked examples for the evolving methods: (given, evolved) pairs by domain and method, all written for this package.

An evolved text in depth adds 10 to 20 words (the paper's limit). What it adds fits nearly any instruction of its domain,
as a model of a hundred million parameters adds to the next instruction what it has just seen added to another; what does
not fit has words of the example's own subject, by which it can be noticed.
"""

from __future__ import annotations

Pairs = tuple[tuple[str, str], ...]

_GENERAL: dict[str, Pairs] = {
    "constraint": (
        (
            "Explain how vaccines work.",
            "Explain how vaccines work in at most 120 words, and use only words that a ten-year-old knows.",
        ),
        (
            "What does a nurse do?",
            "What does a nurse do? Answer in two short paragraphs, and give one example from everyday life in each.",
        ),
        (
            "Give advice to a new teacher.",
            "Give advice to a new teacher in five numbered points, each with a reason and without any technical terms.",
        ),
        (
            "Name a famous painter.",
            "Name a famous painter, justify the answer in no more than three sentences, and end with a question to the reader.",
        ),
        (
            "Compare cats and dogs as pets.",
            "Compare cats and dogs as pets in a table with three rows, and finish with a conclusion of one sentence.",
        ),
        (
            "Suggest ways to save electricity at home.",
            "Suggest ways to save electricity at home in simple words and short sentences, and finish with a summary of one sentence.",
        ),
    ),
    "deepen": (
        (
            "Describe how a bank works.",
            "Describe how a bank works, explain why it is important, and discuss its main advantages and its main risks.",
        ),
        (
            "What is photosynthesis?",
            "What is photosynthesis, how was it discovered, and why is it still important for people today?",
        ),
        (
            "Discuss remote work.",
            "Discuss remote work, how it has changed over the last twenty years, and what effects it has on people's lives.",
        ),
        (
            "Give tips for a job interview.",
            "Give tips for a job interview, explain the reasons behind them, and name a common mistake and how to avoid it.",
        ),
        (
            "List the benefits of reading books.",
            "List the benefits of reading books, explain why they matter, and give two examples of them from everyday life.",
        ),
        (
            "Why do leaves change colour in autumn?",
            "Why do leaves change colour in autumn, why does it matter, and what would happen if they did not?",
        ),
    ),
    "concretize": (
        (
            "Explain what inflation is.",
            "Explain what inflation is for a class of ten-year-old children, with two examples that they know from home.",
        ),
        (
            "Suggest a healthy breakfast.",
            "Suggest a healthy breakfast for a student who lives alone and has only twenty minutes a day for it.",
        ),
        (
            "How can people protect the environment?",
            "How can a family with two small children in a big city protect the environment during one ordinary week?",
        ),
        (
            "Describe the benefits of exercise.",
            "Describe the benefits of exercise for a woman of seventy who lives alone in a small town without a hospital.",
        ),
        (
            "Give tips for learning a language.",
            "Give tips for learning Spanish for a busy office worker who has never learned a language before.",
        ),
        (
            "What makes a good leader?",
            "What makes a good leader in a small company with five employees during its first year?",
        ),
    ),
    "reasoning": (
        (
            "Explain why the sky is blue.",
            "Explain why the sky is blue, starting from what a beginner knows, and give a reason for every step of the explanation.",
        ),
        (
            "Is it a good idea to work from home?",
            "Is it a good idea to work from home? Compare at least two different views, and explain which one is more convincing and why.",
        ),
        (
            "What caused the fall of Rome?",
            "What caused the fall of Rome? First state the main facts, then say what follows from them, and end with a conclusion.",
        ),
        (
            "Give advice on saving money.",
            "Give advice on saving money, compare the costs and benefits of each point, and justify the most important one.",
        ),
        (
            "Describe how to plan a garden.",
            "Describe how to plan a garden step by step, say what could go wrong on the way, and how to prevent it.",
        ),
        (
            "Which is better for a long trip, a train or a car?",
            "Which is better for a long trip, a train or a car? Explain your reasoning step by step before you give the final answer.",
        ),
    ),
    "breadth": (
        ("List five popular sports.", "List five board games that were played in ancient Egypt or Rome."),
        ("Explain how vaccines work.", "Explain how antivenom is made from the blood of horses."),
        ("Describe how to bake bread.", "Describe how to dry mushrooms so that they keep for a year."),
        ("Who was Albert Einstein?", "Who was Lise Meitner, and what did she discover?"),
        ("Give tips for a job interview.", "Give tips for a first day as a volunteer in a museum."),
        ("Compare cats and dogs as pets.", "Compare the hunting habits of owls and herons."),
    ),
}

_WRITING: dict[str, Pairs] = {
    "constraint": (
        (
            "Tell a story about a lost dog.",
            "Tell a story about a lost dog in the first person and the present tense, in no more than ten sentences.",
        ),
        (
            "Write an e-mail that asks for a day off.",
            "Write an e-mail that asks for a day off, in a polite tone, with fewer than 80 words and a short title.",
        ),
        (
            "Write a poem about the sea.",
            "Write a poem about the sea in exactly eight lines, give it a short title, and end it with a question to the reader.",
        ),
        (
            "Compose an essay about friendship.",
            "Compose an essay about friendship in three short paragraphs, each of which begins with a question to the reader.",
        ),
        (
            "Create a slogan for a bakery.",
            "Create a slogan for a bakery in three different versions, each with at most ten words, and say which is the best.",
        ),
        (
            "Write a review of a restaurant.",
            "Write a review of a restaurant in a friendly tone, with two good points, one bad point and a clear conclusion.",
        ),
    ),
    "deepen": (
        (
            "Tell a story about a lost dog.",
            "Tell a story about a lost dog, and show what the main character feels at first and learns in the end.",
        ),
        (
            "Compose an essay about friendship.",
            "Compose an essay about friendship that explains why it matters, how it has changed over time, and what people get wrong about it.",
        ),
        (
            "Write an article about healthy food.",
            "Write an article about healthy food that answers two common questions, and gives two examples from everyday life.",
        ),
        (
            "Write a letter to an old friend.",
            "Write a letter to an old friend that recalls a shared memory, explains its meaning, and asks two sincere questions.",
        ),
        (
            "Write a speech about education.",
            "Write a speech about education that names a problem, explains its causes, and says what each listener can do about it.",
        ),
        (
            "Write a poem about the sea.",
            "Write a poem about the sea that begins in a sad mood, then changes slowly, and closes with a hopeful thought.",
        ),
    ),
    "concretize": (
        (
            "Write a letter to a company.",
            "Write a letter to a small furniture shop about an oak table that arrived two weeks late with a broken leg.",
        ),
        (
            "Write a story about friendship.",
            "Write a story about the friendship between an old baker and a young musician in a small town in winter.",
        ),
        (
            "Write a poem about the sea.",
            "Write a poem about the sea as a tired fisherman sees it from his boat on a cold morning in January.",
        ),
        (
            "Compose an essay about sports.",
            "Compose an essay about how a weekly football match helps new pupils at a village school to find friends.",
        ),
        (
            "Write an advertisement for a drink.",
            "Write an advertisement for a cold ginger drink that is sold at a busy railway station on hot summer days.",
        ),
        (
            "Write a speech for a wedding.",
            "Write a speech for the wedding of two doctors who met by chance on a night train ten years ago.",
        ),
    ),
    "reasoning": (
        (
            "Tell a story about a lost dog.",
            "Tell a story about a lost dog in which each event is the cause of the next, and the ending surprises the reader.",
        ),
        (
            "Compose an essay about city life.",
            "Compose an essay about city life that weighs two arguments for it against two arguments against it before the conclusion.",
        ),
        (
            "Write a letter to the mayor.",
            "Write a letter to the mayor that describes one problem, compares two possible solutions, and justifies the better one.",
        ),
        (
            "Write a review of a restaurant.",
            "Write a review of a restaurant that first names three criteria, then judges each of them, and ends with a conclusion.",
        ),
        (
            "Write a speech about education.",
            "Write a speech about education that makes a claim, supports it with two reasons, and answers one likely objection.",
        ),
        (
            "Create a slogan for a bakery.",
            "Create three slogans for a bakery, compare their strengths and weaknesses, and explain which one you would choose and why.",
        ),
    ),
    "breadth": (
        ("Write a poem about the sea.", "Write a haiku about a salt marsh at low tide."),
        ("Write a thank-you note to a teacher.", "Write a short speech for the retirement of a lighthouse keeper."),
        ("Tell a story about a lost dog.", "Tell a story about a beekeeper whose bees refuse to leave the hive."),
        ("Compose an essay about friendship.", "Compose an essay about the loyalty of ship crews in the polar seas."),
        ("Create a slogan for a bakery.", "Create a slogan for a workshop that repairs old violins."),
        (
            "Write an e-mail that asks for a day off.",
            "Write an e-mail that invites neighbours to restore a village well.",
        ),
    ),
}

_CODE: dict[str, Pairs] = {
    "constraint": (
        (
            "Create a function that adds two numbers.",
            "Create a function that adds two numbers, checks that the input is valid, and raises a clear error if it is not.",
        ),
        (
            "Write a Python function that reverses a string.",
            "Write a Python function that reverses a string, add a short comment to each line, and print the result for one example.",
        ),
        (
            "Find the largest number in an array in Java.",
            "Find the largest number in an array in Java, handle the case of empty input, and add two short tests.",
        ),
        (
            "Write a SQL query that lists all customers.",
            "Write a SQL query that lists all customers in at most ten lines, and add a short comment to each part of it.",
        ),
        (
            "Create an HTML page with a contact form.",
            "Create an HTML page with a contact form without using any external library, and add a short comment to each part.",
        ),
        (
            "Write code that sorts a list of words.",
            "Write code that sorts a list of words, use clear names for all variables, and show one example with the expected output.",
        ),
    ),
    "deepen": (
        (
            "Write a program that reads a text file.",
            "Write a program that reads a text file, explain each part of it, and say how it could be made faster or shorter.",
        ),
        (
            "Explain what a hash table is.",
            "Explain what a hash table is, when it is useful, and what its main advantages and disadvantages are.",
        ),
        (
            "Write a query that counts orders.",
            "Write a query that counts orders, explain each part of it, and show the result for a small example.",
        ),
        (
            "Write a function that computes a factorial.",
            "Write a function that computes a factorial, explain how it works step by step, and discuss how it handles invalid input.",
        ),
        (
            "Create a class for a bank account in Python.",
            "Create a class for a bank account in Python, explain how it works to a beginner, and suggest one improvement of it.",
        ),
        (
            "Create a login form in HTML.",
            "Create a login form in HTML, say what can go wrong when it is used, and how to avoid it.",
        ),
    ),
    "concretize": (
        (
            "Write a function that checks a password.",
            "Write a function that checks that a password has at least 12 characters, one digit and one capital letter.",
        ),
        (
            "Generate a random number in JavaScript.",
            "Write a JavaScript function that generates a random integer from 10 to 99, both included, and prints it to the console.",
        ),
        (
            "Write a query that finds old records.",
            "Write a SQL query that finds the rows of the table orders whose date is before 2020, newest first.",
        ),
        (
            "Write a program that converts units.",
            "Write a Python program that converts units from kilometres to miles and prints the result with two decimal places.",
        ),
        (
            "Create a web page.",
            "Create a web page in HTML with the title Recipes, one heading, an image and a list of five ingredients.",
        ),
        (
            "Sort an array of names.",
            "Write a Java method that sorts an array of 20 student names by last name in ascending order.",
        ),
    ),
    "reasoning": (
        (
            "Find the largest number in a list with Python.",
            "Find the largest number in a list with Python in two different ways, compare them, and explain which one is better and why.",
        ),
        (
            "Sort an array of numbers in C.",
            "Sort an array of numbers in C, describe your approach step by step, and give a reason for each decision.",
        ),
        (
            "Write a loop that sums a list.",
            "Write a loop that sums a list. First list the steps that are needed, then write the code, and explain each step.",
        ),
        (
            "Write a function that checks whether a number is prime.",
            "Write a function that checks whether a number is prime, and explain step by step why it is correct, with one example.",
        ),
        (
            "Write a script that renames files.",
            "Write a script that renames files, then suggest one improvement of the script, and explain the reason for this improvement.",
        ),
        (
            "Create a login form in HTML.",
            "Create a login form in HTML, explain the purpose of each part, and say which part is the most important one and why.",
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
        (
            "Write a SQL query that lists all customers.",
            "Write a SQL query that finds pairs of employees who started on the same day.",
        ),
        ("Explain what a hash table is.", "Explain what a bloom filter is and what it is used for."),
        ("Write a script that renames files.", "Write a script that finds empty folders and moves them to an archive."),
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

EXAMPLES: dict[str, dict[str, Pairs]] = {"general": _GENERAL, "writing": _WRITING, "code": _CODE, "math": _MATH}
