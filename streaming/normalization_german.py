"""German: its words for signs, units, currencies and abbreviations, and how dates and times are read."""

from __future__ import annotations

from num2words import num2words  # type: ignore[import-untyped]

from streaming.normalization_languages import Currency, Grammar, Language, Noun, abbreviations, nouns, words

MONTHS = (
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
)
_DATIVE = words("am vom zum dem den im seit ab bis beim")
_DEFINITE = words("der die das")


def _year(value: int) -> str:
    return str(num2words(value, lang="de", to="year" if 1100 <= value < 2000 else "cardinal"))


def ordinal_day(day: int, before: str) -> str:
    """An ordinal with the ending that the word before asks for: "am vierundzwanzigsten"."""
    stem = str(num2words(day, lang="de", to="ordinal"))
    if before.casefold() in _DATIVE:
        return stem + "n"
    return stem if before.casefold() in _DEFINITE else stem + "r"


def _date(day: int, month: int, year: int | None, before: str) -> str:
    said = f"{ordinal_day(day, before)} {MONTHS[month - 1]}"
    return said if year is None else f"{said} {_year(year)}"


def _time(hour: int, minute: int) -> str:
    words = f"{_agree(str(num2words(hour, lang='de')), False)} Uhr"
    return words if minute == 0 else f"{words} {num2words(minute, lang='de')}"


def _agree(words: str, feminine: bool) -> str:
    if not words.endswith("eins"):
        return words
    return words[:-1] + "e" if feminine and words == "eins" else words[:-1]


_UNITS = nouns("""
mm, Millimeter
cm, Zentimeter
m, Meter
km, Kilometer
mg, Milligramm
g, Gramm
kg, Kilogramm
t, Tonne, Tonnen, f
ml, Milliliter
l, Liter
L, Liter
ms, Millisekunde, Millisekunden, f
s, Sekunde, Sekunden, f
Sek, Sekunde, Sekunden, f
min, Minute, Minuten, f
Min, Minute, Minuten, f
h, Stunde, Stunden, f
Std, Stunde, Stunden, f
km/h, Kilometer pro Stunde
m/s, Meter pro Sekunde
m², Quadratmeter
m2, Quadratmeter
qm, Quadratmeter
km², Quadratkilometer
m³, Kubikmeter
ha, Hektar
kB, Kilobyte
KB, Kilobyte
MB, Megabyte
GB, Gigabyte
TB, Terabyte
Hz, Hertz
kHz, Kilohertz
MHz, Megahertz
GHz, Gigahertz
W, Watt
kW, Kilowatt
MW, Megawatt
GW, Gigawatt
kWh, Kilowattstunde, Kilowattstunden, f
V, Volt
A, Ampere
dB, Dezibel
kcal, Kilokalorie, Kilokalorien, f
°C, Grad Celsius
°F, Grad Fahrenheit
°, Grad
%, Prozent
‰, Promille
""")
_CENT = Noun("Cent", "Cent")
_EURO, _DOLLAR = Currency(Noun("Euro", "Euro"), _CENT), Currency(Noun("Dollar", "Dollar"), _CENT)
_POUND = Currency(Noun("Pfund", "Pfund"), Noun("Penny", "Pence"))
_FRANC = Currency(Noun("Franken", "Franken"), Noun("Rappen", "Rappen"))
_YEN = Currency(Noun("Yen", "Yen"))

GERMAN = Language(
    code="de",
    grammar=Grammar(_year, _date, _time, _agree),
    decimal=",",
    grouping=". '’\u00a0\u202f",
    point="Komma",
    minus="minus",
    plus="plus",
    to="bis",
    about="etwa",
    joint="und",
    of=lambda noun: f" {noun}",
    per="pro",
    months=MONTHS,
    month_shorts={
        "jan": 1, "feb": 2, "mär": 3, "apr": 4, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "sept": 9, "okt": 10,
        "nov": 11, "dez": 12, "jänner": 1,
    },
    currencies={
        "€": _EURO, "EUR": _EURO, "$": _DOLLAR, "USD": Currency(Noun("US-Dollar", "US-Dollar"), _CENT),
        "US$": Currency(Noun("US-Dollar", "US-Dollar"), _CENT), "£": _POUND, "GBP": _POUND, "CHF": _FRANC,
        "Fr": _FRANC, "¥": _YEN, "JPY": _YEN, "ct": Currency(_CENT),
    },
    units=_UNITS,
    magnitudes=nouns("""
        Tsd, tausend
        Mio, Million, Millionen, f
        Mrd, Milliarde, Milliarden, f
        Bio, Billion, Billionen, f
        Million, Million, Millionen, f
        Millionen, Million, Millionen, f
        Milliarde, Milliarde, Milliarden, f
        Milliarden, Milliarde, Milliarden, f
    """),
    signs={
        "=": "gleich", "+": "plus", "-": "minus", "×": "mal", "*": "mal", "÷": "geteilt durch", "/": "geteilt durch",
        "<": "kleiner als", ">": "größer als", "≤": "höchstens", "≥": "mindestens", "≠": "ungleich", "≈": "ungefähr",
        "±": "plus minus", "&": "und", "²": "Quadrat", "³": "hoch drei", "^": "hoch", "§": "Paragraf", "%": "Prozent",
        "√": "Wurzel aus", "°": "Grad",
    },
    address_signs={
        ".": "Punkt", "/": "Schrägstrich", "@": "at", "-": "Minus", "_": "Unterstrich", ":": "Doppelpunkt",
        "+": "Plus", "~": "Tilde",
    },
    abbreviations=abbreviations("""
        z.b, zum Beispiel
        d.h, das heißt
        u.a, unter anderem
        u.u, unter Umständen
        i.d.r, in der Regel
        usw, und so weiter, dot
        bzw, beziehungsweise, dot
        ca, circa, dot
        evtl, eventuell, dot
        ggf, gegebenenfalls, dot
        inkl, inklusive, dot
        exkl, exklusive, dot
        zzgl, zuzüglich, dot
        vgl, vergleiche, dot
        etc, et cetera, dot
        dr, Doktor, name
        prof, Professor, name
        hr, Herr, name
        fr, Frau, name
        nr, Nummer, dotted number
        abs, Absatz, dotted number
        art, Artikel, dotted number
        kap, Kapitel, dotted number
        bd, Band, dotted number
        s, Seite, dotted number
        tel, Telefon, dot
    """),
    fractions={
        "1/2": "einhalb", "1/3": "ein Drittel", "2/3": "zwei Drittel", "1/4": "ein Viertel", "3/4": "drei Viertel",
    },
    leading=_DATIVE | _DEFINITE,
    hour_words="Uhr",
    number_sign="Nummer",
    ordinal_dots=True,
)  # fmt: skip
