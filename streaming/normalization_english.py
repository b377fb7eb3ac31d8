"""English: its words for signs, units, currencies and abbreviations, and how dates and times are read."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from num2words import num2words  # type: ignore[import-untyped]

from streaming.normalization_languages import Abbreviation, Currency, Grammar, Language, Noun, words


def _small(value: int) -> str:
    return str(num2words(value, lang="en"))


def year(value: int) -> str:
    """As years are read, in pairs of digits: "nineteen oh five"."""
    century, rest = divmod(value, 100)
    if not 1100 <= value < 2100 or (century % 10 == 0 and rest < 10):
        return str(num2words(value, lang="en")).replace(",", "")
    if rest == 0:
        return f"{_small(century)} hundred"
    return f"{_small(century)} {_small(rest)}" if rest > 9 else f"{_small(century)} oh {_small(rest)}"


def pairs(value: int) -> str:
    """Four digits as two numbers: "ten eighty", unless they are round."""
    century, rest = divmod(value, 100)
    if rest < 10 or century < 10:
        return str(num2words(value, lang="en")).replace(",", "")
    return f"{_small(century)} {_small(rest)}"


def ordinal(value: int) -> str:
    return str(num2words(value, lang="en", to="ordinal"))


MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def _date(day: int, month: int, of_year: int | None, _before: str) -> str:
    said = f"{MONTHS[month - 1]} {ordinal(day)}"
    return said if of_year is None else f"{said}, {year(of_year)}"


def _time(hour: int, minute: int) -> str:
    if minute == 0 and hour in (0, 24):
        return "midnight"
    if minute == 0:
        return f"{_small(hour)} o'clock" if 0 < hour < 13 else f"{_small(hour)} hundred"
    return f"{_small(hour)} {'oh ' if minute < 10 else ''}{_small(minute)}"


def _units() -> dict[str, Noun]:
    plain = {
        "mm": "millimeter", "cm": "centimeter", "dm": "decimeter", "m": "meter", "km": "kilometer", "µm": "micrometer",
        "μm": "micrometer", "nm": "nanometer", "mi": "mile", "yd": "yard", "yds": "yard", "mg": "milligram",
        "µg": "microgram", "g": "gram", "kg": "kilogram", "lb": "pound", "lbs": "pound", "oz": "ounce",
        "ml": "milliliter", "mL": "milliliter", "cl": "centiliter", "dl": "deciliter", "l": "liter", "L": "liter",
        "gal": "gallon", "s": "second", "sec": "second", "secs": "second", "min": "minute", "mins": "minute",
        "h": "hour", "hr": "hour", "hrs": "hour", "ms": "millisecond", "µs": "microsecond", "μs": "microsecond",
        "ns": "nanosecond", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte",
        "PB": "petabyte", "KiB": "kibibyte", "MiB": "mebibyte", "GiB": "gibibyte", "W": "watt", "kW": "kilowatt",
        "MW": "megawatt", "GW": "gigawatt", "Wh": "watt hour", "kWh": "kilowatt hour", "MWh": "megawatt hour",
        "V": "volt", "kV": "kilovolt", "mV": "millivolt", "mA": "milliamp", "mAh": "milliamp hour", "dB": "decibel",
        "px": "pixel", "J": "joule", "kJ": "kilojoule", "kcal": "kilocalorie", "Pa": "pascal", "kPa": "kilopascal",
        "hPa": "hectopascal", "ha": "hectare", "Ω": "ohm", "kΩ": "kiloohm",
        "km²": "square kilometer", "km2": "square kilometer", "m²": "square meter", "m2": "square meter",
        "cm²": "square centimeter", "m³": "cubic meter", "m3": "cubic meter", "cm³": "cubic centimeter",
    }  # fmt: skip
    alike = {
        "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "THz": "terahertz",
        "mph": "miles per hour", "kph": "kilometers per hour", "fps": "frames per second", "psi": "P S I",
        "kbps": "kilobits per second", "Mbps": "megabits per second", "Gbps": "gigabits per second",
        "rpm": "R P M", "bps": "bits per second",
    }  # fmt: skip
    return {
        **{sign: Noun(name, name + "s") for sign, name in plain.items()},
        **{sign: Noun(name, name) for sign, name in alike.items()},
        "mph": Noun("mile per hour", "miles per hour"),
        "km/h": Noun("kilometer per hour", "kilometers per hour"),
        "m/s": Noun("meter per second", "meters per second"),
        "ft": Noun("foot", "feet"),
        "sq ft": Noun("square foot", "square feet"),
        "in": Noun("inch", "inches"),
        "tbsp": Noun("tablespoon", "tablespoons"),
        "tsp": Noun("teaspoon", "teaspoons"),
        "qt": Noun("quart", "quarts"),
        "″": Noun("inch", "inches"),
        "°C": Noun("degree Celsius", "degrees Celsius"),
        "°F": Noun("degree Fahrenheit", "degrees Fahrenheit"),
        "°": Noun("degree", "degrees"),
        "x": Noun("time", "times"),
        "×": Noun("time", "times"),
        "%": Noun("percent", "percent"),
        "‰": Noun("per mille", "per mille"),
        "M": Noun("million", "million"),
        "bn": Noun("billion", "billion"),
    }


def _currencies() -> dict[str, Currency]:
    cent = Noun("cent", "cents")
    dollar, euro = Currency(Noun("dollar", "dollars"), cent), Currency(Noun("euro", "euros"), cent)
    pound = Currency(Noun("pound", "pounds"), Noun("penny", "pence"))
    kinds = {"US": "US", "CA": "Canadian", "AU": "Australian", "NZ": "New Zealand", "HK": "Hong Kong"}
    dollars = {
        short: Currency(Noun(f"{kind} dollar", f"{kind} dollars"), cent)
        for country, kind in kinds.items()
        for short in (f"{country}D", f"{country}$")
    }
    yen, yuan = Currency(Noun("yen", "yen")), Currency(Noun("yuan", "yuan"))
    rupee = Currency(Noun("rupee", "rupees"), Noun("paisa", "paise"))
    franc = Currency(Noun("Swiss franc", "Swiss francs"))
    return {
        "$": dollar, "€": euro, "£": pound, "¥": yen, "₹": rupee, "₩": Currency(Noun("won", "won")),
        "₽": Currency(Noun("ruble", "rubles")), "₺": Currency(Noun("lira", "lira")),
        "₿": Currency(Noun("bitcoin", "bitcoins")), "¢": Currency(cent), **dollars,
        "C$": dollars["CAD"], "A$": dollars["AUD"], "R$": Currency(Noun("real", "reais")),
        "EUR": euro, "GBP": pound, "JPY": yen, "CNY": yuan, "RMB": yuan, "INR": rupee, "CHF": franc,
    }  # fmt: skip


def _abbreviations() -> dict[str, Abbreviation]:
    names = {"dr": "Doctor", "ms": "Miz", "prof": "Professor", "st": "Saint"}
    ranks = {
        "gen": "General", "sen": "Senator", "rep": "Representative", "gov": "Governor", "capt": "Captain",
        "lt": "Lieutenant", "col": "Colonel", "sgt": "Sergeant", "rev": "Reverend", "mt": "Mount", "ft": "Fort",
        "pres": "President", "maj": "Major",
    }  # fmt: skip
    always = {
        "e.g": "for example", "i.e": "that is", "a.k.a": "also known as",
        "w/": "with", "w/o": "without", "mr": "Mister", "mrs": "Missus", "vs": "versus", "etc": "et cetera",
    }  # fmt: skip
    dotted = {
        "approx": "approximately", "ca": "circa", "cf": "compare", "jr": "Junior",
        "sr": "Senior", "inc": "Incorporated", "ltd": "Limited", "corp": "Corporation", "dept": "department",
        "govt": "government", "assn": "association", "univ": "University", "ave": "Avenue", "blvd": "Boulevard",
        "rd": "Road", "est": "established", "jan": "January", "feb": "February", "aug": "August", "sept": "September",
        "oct": "October", "nov": "November", "dec": "December", "incl": "including", "misc": "miscellaneous",
        "mon": "Monday", "tue": "Tuesday", "tues": "Tuesday", "wed": "Wednesday", "thu": "Thursday",
        "thurs": "Thursday", "fri": "Friday",
    }  # fmt: skip
    numbered = {
        "no": "number", "nos": "numbers", "fig": "figure", "figs": "figures", "vol": "volume", "ch": "chapter",
        "sec": "section", "eq": "equation", "p": "page", "pp": "pages", "pg": "page", "art": "article",
        "c": "circa",
    }  # fmt: skip
    return {
        **{short: Abbreviation(spoken, "name") for short, spoken in names.items()},
        **{short: Abbreviation(spoken, "dotted name") for short, spoken in ranks.items()},
        **{short: Abbreviation(spoken) for short, spoken in always.items()},
        **{short: Abbreviation(spoken, "dot") for short, spoken in dotted.items()},
        **{short: Abbreviation(spoken, "dotted number") for short, spoken in numbered.items()},
    }


MONTH_SHORTS = MappingProxyType({
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "sept": 9, "oct": 10, "nov": 11,
    "dec": 12,
})  # fmt: skip
MONARCHS = words("""
    louis henry charles george edward james william elizabeth richard philip pius john paul benedict francis gregory
    leo clement innocent alexander peter nicholas ivan frederick wilhelm napoleon ramesses ptolemy mary catherine otto
    haakon gustav christian carl felipe alfonso urban boniface rudolf ferdinand maximilian leopold baldwin albert david
    robert margaret anne victoria stephen xerxes darius
""")
"""Names with a number that is an ordinal: Henry the Eighth."""
CHAPTERS = words("""
    chapter part act scene book volume vol section article phase title appendix type stage grade level war bowl episode
    canto group division tier apollo
""")
"""Words that a Roman number may follow, even a single letter."""
BEFORE_DECADES = words("the his her their my your our early mid late its")
"""Words behind which "90s" are years and no seconds."""

ENGLISH = Language(
    code="en",
    grammar=Grammar(year, _date, _time),
    decimal=".",
    grouping=",",
    point="point",
    minus="minus",
    plus="plus",
    to="to",
    about="about",
    joint="and",
    of=lambda noun: f" {noun}",
    per="per",
    months=MONTHS,
    month_shorts=MONTH_SHORTS,
    currencies=_currencies(),
    units=_units(),
    magnitudes={
        "thousand": Noun("thousand", "thousand"), "million": Noun("million", "million"),
        "billion": Noun("billion", "billion"), "trillion": Noun("trillion", "trillion"),
        "k": Noun("thousand", "thousand"), "K": Noun("thousand", "thousand"), "m": Noun("million", "million"),
        "M": Noun("million", "million"), "mn": Noun("million", "million"), "bn": Noun("billion", "billion"),
        "B": Noun("billion", "billion"), "b": Noun("billion", "billion"), "tn": Noun("trillion", "trillion"),
        "T": Noun("trillion", "trillion"),
    },
    signs={
        "=": "equals", "+": "plus", "-": "minus", "×": "times", "*": "times", "÷": "divided by", "/": "divided by",
        "<": "is less than", ">": "is greater than", "≤": "is at most", "≥": "is at least", "≠": "is not equal to",
        "≈": "is about", "±": "plus or minus", "&": "and", "√": "the square root of", "²": "squared", "³": "cubed",
        "^": "to the power of", "§": "section", "%": "percent", "∞": "infinity", "π": "pi", "°": "degrees",
    },
    address_signs={
        ".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore", ":": "colon", "+": "plus", "~": "tilde",
    },
    abbreviations=_abbreviations(),
    fractions={
        "1/2": "one half", "1/3": "one third", "2/3": "two thirds", "1/4": "one quarter", "3/4": "three quarters",
    },
    leading=MONARCHS | CHAPTERS | BEFORE_DECADES | words("mon tue tues wed thu thurs fri sat sun"),
    month_first=True,
    english=True,
)  # fmt: skip
BRITISH = replace(ENGLISH, month_first=False)
