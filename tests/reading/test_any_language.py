"""Rows in other languages than English: which one a text is in, and the rules for them."""

import importlib.util
from dataclasses import replace

import pytest

from hf_evol.errors import ConfigError, MissingExtraError
from hf_evol.prompts.evol_instruct import METHODS, Method, resolve_methods, version_of
from hf_evol.prompts.examples import EXAMPLES
from hf_evol.prompts.template import chat
from hf_evol.reading.evolved import read_evolved

pytest.importorskip("py3langid")

from hf_evol.prompts.languages import is_other_language, language_of, languages

# A parent, a good rewriting, a near copy, and an answer.
ROWS = {
    "de": (
        "Wie kocht man Reis?",
        "Erkläre Schritt für Schritt, wie man Reis kocht, und nenne zwei häufige Fehler und ihre Folgen.",
        "Wie kocht man guten Reis?",
        "Reis kocht man in der doppelten Menge Wasser bei kleiner Hitze etwa zwanzig Minuten lang.",
    ),
    "fr": (
        "Qu'est-ce qu'un volcan ?",
        "Qu'est-ce qu'un volcan, quels types en existe-t-il, et à quels signes reconnaît-on une éruption prochaine ?",
        "Qu'est-ce donc qu'un volcan ?",
        "Un volcan est une ouverture dans la croûte terrestre par laquelle sortent de la lave et des gaz.",
    ),
    "es": (
        "¿Qué es un volcán?",
        "¿Qué es un volcán, qué tipos existen y qué señales indican que va a entrar pronto en erupción?",
        "¿Qué es un gran volcán?",
        "Un volcán es una abertura de la corteza terrestre por la que salen lava y gases muy calientes.",
    ),
    "zh": (
        "解释人工智能的优点。",
        "解释人工智能的优点，再说明人工智能的缺点，并举出医疗和教育方面的具体例子。",
        "请解释人工智能的优点。",
        "第一，它可以很快地处理大量数据；第二，它从不疲倦，能够整天工作而不出错误。",
    ),
    "ja": (
        "火山とは何ですか？",
        "火山とは何ですか？どのような種類があり、噴火が近いことはどんな兆候から分かるのかも教えてください。",
        "火山とは一体何ですか？",
        "地下のマグマが地表に噴き出してできた山のことで、日本には百以上ある。",
    ),
    "ar": (
        "ما هو البركان؟",
        "ما هو البركان، وما أنواعه، وما العلامات التي تدل على قرب ثورانه؟",
        "ما هو البركان إذن؟",
        "البركان فتحة في قشرة الأرض تخرج منها الحمم والغازات الساخنة والرماد.",
    ),
    "hi": (
        "ज्वालामुखी क्या है?",
        "ज्वालामुखी क्या है, उसके कितने प्रकार होते हैं, और वैज्ञानिक किन संकेतों से पहचानते हैं कि विस्फोट होने वाला है?",
        "ज्वालामुखी आखिर क्या है?",
        "ज्वालामुखी पृथ्वी की सतह पर वह दरार होती जिससे गरम लावा और गैसें बाहर निकलती हैं।",
    ),
    "ko": (
        "도서관의 역할을 설명하세요.",
        "작은 도시에서 도서관의 역할을 설명하고, 인터넷이 등장한 뒤 그 역할이 어떻게 달라졌는지도 말해 주세요.",
        "도서관의 역할을 잘 설명하세요.",
        "책과 자료를 모아 누구나 빌려 읽을 수 있게 하고 조용히 공부할 자리를 내어 준다.",
    ),
}  # fmt: skip
ENGLISH = "What is a volcano, which kinds are there, and how do scientists know that one is about to erupt?"


def read(reply, parent, method="deepen", **options):
    return read_evolved(reply, parent=parent, prompt=chat(parent), method=method, same_language=True, **options)


def status(reply, parent, method="deepen", **options):
    return read(reply, parent, method, **options)[1]


@pytest.mark.parametrize("language", ROWS)
def test_statuses_in_any_language(language):
    parent, good, copy, answer = ROWS[language]
    assert language_of(good) == language
    assert read(good, parent) == (good, "ok")
    assert status(parent, parent) == "unchanged" and status(copy, parent) == "near_copy"
    assert status(answer, parent) in ("answered", "off_topic")
    assert status(good, parent, finish_reason="length") == "cut_off"
    assert status("I'm sorry, but I can't help with that.", parent) == "refusal"
    assert status(ENGLISH, parent) == "other_language" and status(ENGLISH, parent, "breadth") == "other_language"
    assert status(good, ENGLISH) == "other_language"
    assert status(f"{good} {good}", parent) == "broken"
    steps = "\n".join(f"{number}. {answer}" for number in "123")
    assert status(f"{parent}\n{steps}", parent) in ("answered", "broken")
    assert status(parent, parent, "breadth") == "unchanged" and status(copy, parent, "breadth") == "near_copy"


@pytest.mark.parametrize(
    ("reply", "language"),
    [
        ("Hier ist die überarbeitete Aufgabe:\n\n{}", "de"), ("**Neue Aufgabe:** {}", "de"), ("Voici la nouvelle consigne :\n« {} »", "fr"),
        ("Nueva pregunta: {}", "es"), ("改写后的指令：{}", "zh"), ("新しい質問：\n{}", "ja"), ("السؤال الجديد: {}", "ar"), ("नया प्रश्न: {}", "hi"),
        ("Sure, here is the rewritten prompt:\n\n{}", "ko"),
    ],
)  # fmt: skip
def test_leads_of_other_languages_are_taken_off(reply, language):
    parent, good, *_ = ROWS[language]
    assert read(reply.format(good), parent) == (good, "ok")


@pytest.mark.parametrize(
    ("parent", "reply"),
    [
        ("Entwirf eine Umfrage zur Ernährung.", "Entwirf eine Umfrage zur Ernährung: mit zehn Fragen für Jugendliche und einer Auswertung der Antworten."),
        ("Beschreibe die Nachfrage nach Öl.", "Beschreibe die Nachfrage nach Öl: wie sie in Europa seit 1990 gestiegen ist und was sie gebremst hat."),
        ("Warum ist der Himmel blau?", "Beantworte die Frage in zwei Sätzen für Kinder: Warum ist der Himmel am Abend nicht mehr blau?"),
        ("Beantworte die Frage, warum der Himmel blau ist.", "Beantworte die Frage: warum der Himmel blau ist, und was am Abend anders ist."),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_lead_stays(parent, reply):
    assert read(reply, parent)[0] == reply


def test_figures_are_the_same_in_any_digits():
    parent = "ナイル川について３つのことを説明してください。"
    reply = "ナイル川について3つのことを説明してください。さらに古代エジプトの農業との関係も例を挙げて述べてください。"
    assert status(reply, parent) == "ok" and status(reply.replace("3", "4"), parent) == "off_topic"


def test_versions_tell_languages_apart():
    own = Method("own", "{instruction}")
    assert version_of([own]) != version_of([replace(own, same_language=True)])


def test_probabilities_cannot_be_changed():
    with pytest.raises(TypeError):
        languages(ENGLISH)["en"] = 0


def test_a_parents_own_label_stays():
    parent = "Beantworte die Frage: Was ist ein Vulkan?"
    reply = f"{parent} Nenne drei Beispiele aus Europa und ihre letzten Ausbrüche."
    assert read(reply, parent) == (reply, "ok")


@pytest.mark.parametrize(
    "reply",
    ["Es tut mir leid, aber dabei kann ich nicht helfen.", "Désolé, je ne peux pas répondre.", "Lo siento, no puedo ayudarte.",
     "抱歉，我无法完成这个请求。", "申し訳ありませんが、お手伝いできません。", "آسف، لا أستطيع المساعدة في ذلك.", "К сожалению, я не могу помочь."],
)  # fmt: skip
def test_refusals_of_other_languages(reply):
    assert status(reply, "Nenne drei Flüsse in Afrika.") == "refusal"


@pytest.mark.parametrize(
    ("parent", "reply", "said"),
    [
        ("Fasse den Text in 50 Wörtern zusammen.", "Fasse den Text in höchstens 80 Wörtern zusammen und nenne am Ende drei offene Fragen.", "off_topic"),
        ("Übersetze \"good night\" ins Deutsche.", "Übersetze den Satz ins Deutsche und erkläre, in welcher Lage man ihn sagt.", "off_topic"),
        ("Nenne drei Flüsse in Afrika.", "Nenne drei Flüsse in Afrika, Afrika, Afrika, Afrika und ihre Länge in Kilometern.", "broken"),
        ("Nenne drei Flüsse in Afrika.", "Beschreibe ausführlich die Musik der Romantik und ihre wichtigsten Komponisten.", "off_topic"),
        ("Nenne drei Flüsse in Afrika.", "Nenne drei Flüsse in Afrika " + " ".join(f"Wort{number}" for number in range(70)), "answered"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_any_language(parent, reply, said):
    assert status(reply, parent) == said


def test_words_of_an_example_are_a_leak():
    parent, good, *_ = ROWS["de"]
    example = (
        "Beschreibe, wie ein alter Webstuhl im Museum arbeitet.",
        "Zeichne eine Windmühle an der Küste von Holland.",
    )
    prompt = chat(parent, "Say.", [example])
    for reply, method in (
        (f"{good} Beschreibe, wie ein alter Webstuhl im Museum arbeitet.", "deepen"),
        (example[1], "breadth"),
    ):
        assert read_evolved(reply, parent=parent, prompt=prompt, method=method, same_language=True)[1] == "leak"


@pytest.mark.parametrize(
    ("parent", "text"),
    [
        ("def f(x): return x + 1", ROWS["de"][1]), ("42", ENGLISH), ("https://example.com/a", ROWS["fr"][1]), ("SELECT * FROM users WHERE age > 30;", ROWS["zh"][1]),
        ("Erkläre diesen Code: for i in range(10): print(i)", "Sage, was dieser Code ausgibt: for i in range(10): print(i)"),
        ("Übersetze: Where is the nearest train station, and when does the next train leave?", "Übersetze: Where is the nearest train station, and when does the next train leave? Einmal höflich, einmal unter Freunden."),
        ("Explique la fonction COUNT(*) de SQL.", "Avec une table customers, explique la fonction COUNT(*) de SQL et `SELECT name FROM users GROUP BY name`."),
        ("Translate to French: The house is red.", "Translate to French: The house is red. Explain \"la maison est rouge et le toit est noir\" word by word."),
        (ROWS["de"][0], "Reis?"), ("Mele Kalikimaka", ENGLISH),
    ],
)  # fmt: skip
def test_nothing_is_said_of_code_and_of_a_few_words(parent, text):
    assert not is_other_language(text, parent)


def test_each_language_has_its_examples_and_they_are_evolved_as_replies_should_be():
    for name in METHODS:
        pairs = EXAMPLES["multilingual"][name]
        found = [language_of(evolved) for _, evolved in pairs]
        assert len(set(found)) == 10 and all(found.count(language) == 2 for language in found)
        for given, evolved in pairs:
            assert read(evolved, given, name) == (evolved, "ok")


@pytest.mark.parametrize("language", ["de", "fr", "es", "zh", "ja", "ar", "hi"])
def test_examples_of_the_rows_own_language_are_shown_first(language):
    for method in resolve_methods("multilingual"):
        turns = method.prompt(ROWS[language][0])
        other, *own = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        assert [language_of(text) for text in own] == [language] * 2 and language_of(other) != language
        english = [turn["content"] for turn in method.prompt(ENGLISH) if turn["role"] == "assistant"]
        assert set(english) <= {evolved for _, evolved in EXAMPLES["general"][method.name]}
        korean = [turn["content"] for turn in method.prompt(ROWS["ko"][0]) if turn["role"] == "assistant"]
        assert not {language_of(text) for text in korean} & {"ko", "en"}
        assert "language of the task" in turns[0]["content"]


def test_methods_that_keep_the_language_come_back_from_plain_values_and_need_the_extra(monkeypatch):
    for method in resolve_methods("multilingual"):
        assert method.same_language and Method(**method.to_dict()) == method
    with pytest.raises(ConfigError, match="same_language must be true or false; got 'yes'"):
        Method("own", "{instruction}", same_language="yes")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for make in (lambda: resolve_methods("multilingual"), lambda: Method("own", "{instruction}", same_language=True)):
        with pytest.raises(MissingExtraError, match=r"needs py3langid.*pip install 'hf_evol\[multilingual\]'"):
            make()
    assert not any(method.same_language for method in resolve_methods("science"))
