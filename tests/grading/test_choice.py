"""Which option a reply decides for."""

import pytest

from reflectevo_lite.grading import extract_choice

FOUR = ["The roof leaks in winter", "A storm was coming", "Nobody paid the rent", "All of the tenants left"]
CHOICE = {
    "A": [
        "A",
        "(A) The roof leaks in winter",
        "The answer is A because the roof leaks.",
        "the answer is a.",
        "finish[a]",
        "Answer: A The roof leaks in winter",
        "A is correct. C is wrong.",
    ],
    "B": [
        "Finish[B. A storm was coming]",
        "The answer is (B) because A is wrong.",
        "The answer is B, not A.",
        "Answer:\nB",
        "The answer is A storm was coming.",
        "B\n\nI hope this helps.",
        "Answer: B\n\nI hope this answer is helpful.",
        "Let me see. The answer is D. Wait, actually the answer is B.",
        "a storm was coming",
        "Option B",
        "<answer>B</answer>",
        "The answer is B.\n\nQuestion: What next?\nAnswer: C",
        "The answer is B\nExplanation: answer A fails.",
    ],
    "C": [
        "Vitamin D helps. The answer is C",
        r"$\boxed{\text{(C)}}$",
        "**Answer:** c",
        "I would pick C.",
        "答案是 C。",
        "We can eliminate A, B and D, leaving C.",
        "Thought: maybe Finish[A]? No.\nAction: Finish[C]",
        "Option C is correct.",
        "It seems that nobody paid the rent.",
        "The answer is C<|im_end|>\n<|im_start|>user\nThe answer is A",
    ],
    None: [
        "",
        "  \n",
        "Finish[E]",
        "Finish[]",
        "Finish[A or B]",
        "Finish[A/C]",
        "Finish[ABCD]",
        "Finish[None of the above]",
        "The answer is not A.",
        "The answer is A or C.",
        "A and B are both correct.",
        "Neither A nor B is correct.",
        "The answer is a matter of taste.",
        "A storm is weather. I need more detail",
        "Type A is correct in blood tests",
        "I think so.",
        "E",
        "\n".join(f"{'ABCD'[i]}. {text}" for i, text in enumerate(FOUR)),
        "It could be B, or maybe D.",
        "Group B got aspirin and group A did not.",
        "The answer is 7.",
        "If A is correct then B is wrong",
        "Answer: both A and B",
        "I would not choose B.",
        "It is wrong that nobody paid the rent.",
        "The answer cannot be determined.",
        "A\nB\nC\nD",
    ],
}


@pytest.mark.parametrize("letter", CHOICE)
def test_extract_choice_reads_prose(letter):
    assert [(text, got) for text in CHOICE[letter] if (got := extract_choice(text, FOUR)) != letter] == []


@pytest.mark.parametrize(
    ("text", "choices", "letter"),
    [
        ("Yes, it is.", ["Yes", "No"], "A"),
        ("No one knows.", ["Yes", "No"], None),
        ("Yes or no", ["Yes", "No"], None),
        ("There is no proof.", ["Yes", "No"], None),
        ("Yes, it sinks. So the answer is no.", ["Yes", "No"], "B"),
        ("The claim is not True.", ["True", "False", "Neither"], None),
        ("The claim is neither.", ["True", "False", "Neither"], "C"),
        ("The argument is invalid.", ["valid", "invalid"], "B"),
        ("The date is 09/01/2008.", ["04/09/2008", "09/01/2008"], "B"),
        ("Gwen is older than James.", ["Gwen", "James"], None),
        ("Finish[H and W]", ["G and I", "H and W"], "B"),
        ("Answer: A", [], None),
        ("(G)", list("tuvwxyz"), "G"),
    ],
)
def test_extract_choice_reads_wordings(text, choices, letter):
    assert extract_choice(text, choices) == letter
