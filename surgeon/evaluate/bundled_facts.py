"""The facts and words of the bundled probe sets."""

from __future__ import annotations

FACTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "capital": (
        "What is the capital of {}?",
        "The capital of {} is",
        {
            "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid", "Japan": "Tokyo",
            "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw",
            "Portugal": "Lisbon", "Norway": "Oslo", "Cuba": "Havana", "Ireland": "Dublin", "Kenya": "Nairobi",
            "Peru": "Lima", "Hungary": "Budapest", "Iran": "Tehran", "Finland": "Helsinki", "Iraq": "Baghdad",
        },
    ),
    "opposite": (
        "What is the opposite of {}?",
        "The opposite of {} is",
        {
            "hot": "cold", "big": "small", "up": "down", "day": "night", "early": "late", "open": "closed",
            "wet": "dry", "fast": "slow", "hard": "soft", "old": "young", "full": "empty", "rich": "poor",
            "loud": "quiet", "strong": "weak", "heavy": "light", "first": "last",
        },
    ),
    "young": (
        "What is a young {} called?",
        "A young {} is called a",
        {
            "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "lion": "cub",
            "goat": "kid", "hen": "chick", "duck": "duckling", "deer": "fawn",
        },
    ),
    "use": (
        "What do people use to {}?",
        "To {}, people use a",
        {
            "cut paper": "pair of scissors", "drive in a nail": "hammer", "sweep the floor": "broom",
            "open a lock": "key", "measure time": "clock", "take a picture": "camera", "dig a hole": "shovel",
            "eat soup": "spoon", "find the way north": "compass", "see the stars": "telescope",
            "keep off the rain": "umbrella", "cross a river": "bridge",
        },
    ),
    "month": (
        "Which month comes right after {}?",
        "The month right after {} is",
        {
            "January": "February", "March": "April", "May": "June", "July": "August", "September": "October",
            "November": "December",
        },
    ),
    "colour": (
        "What is the usual colour of {}?",
        "The usual colour of {} is",
        {"grass": "green", "snow": "white", "coal": "black", "blood": "red", "a lemon": "yellow",
         "the sky on a clear day": "blue"},
    ),
    "language": (
        "Which language do most people in {} speak?",
        "Most people in {} speak",
        {"Brazil": "Portuguese", "Mexico": "Spanish", "Austria": "German", "Egypt": "Arabic", "Australia": "English",
         "Senegal": "French"},
    ),
}  # fmt: skip
"""Topic -> (question, unfinished sentence, {subject: answer}); distractors are other answers of the topic."""

WORDS = (
    "apple", "river", "stone", "window", "garden", "paper", "silver", "bread", "cloud", "table", "horse", "winter",
    "music", "green", "bottle", "forest", "candle", "letter", "summer", "basket", "mirror", "yellow", "island",
    "coffee", "spring", "bridge", "flower", "market", "purple", "station", "mountain", "orange", "pencil", "rabbit",
    "shadow", "ticket", "valley", "wagon", "butter", "castle", "doctor", "engine", "father", "hammer", "kitchen",
    "lemon", "metal", "number", "ocean", "planet",
)  # fmt: skip
"""Words of the copying set."""
