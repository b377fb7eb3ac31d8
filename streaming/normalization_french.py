"""French: its words for signs, units, currencies and abbreviations, and how dates and times are read."""

from __future__ import annotations

from num2words import num2words  # type: ignore[import-untyped]

from streaming.normalization_languages import Currency, Grammar, Language, Noun, abbreviations, nouns

MONTHS = (
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
)


def _number(value: int) -> str:
    return str(num2words(value, lang="fr"))


def _date(day: int, month: int, year: int | None, _before: str) -> str:
    said = f"{'premier' if day == 1 else _number(day)} {MONTHS[month - 1]}"
    return said if year is None else f"{said} {_number(year)}"


def _time(hour: int, minute: int) -> str:
    words = f"{_agree(_number(hour), True)} {'heure' if hour < 2 else 'heures'}"
    return words if minute == 0 else f"{words} {_agree(_number(minute), True)}"


def _agree(words: str, feminine: bool) -> str:
    ends_in_one = words == "un" or words.endswith((" un", "-un"))
    return words + "e" if feminine and ends_in_one else words


def _of(noun: str) -> str:
    return f" d'{noun}" if noun[0] in "aeiouéh" else f" de {noun}"


_CENT = Noun("centime", "centimes")
_EURO, _DOLLAR = Currency(Noun("euro", "euros"), _CENT), Currency(Noun("dollar", "dollars"), Noun("cent", "cents"))
_US_DOLLAR = Currency(Noun("dollar américain", "dollars américains"), Noun("cent", "cents"))
_POUND = Currency(Noun("livre", "livres", feminine=True), Noun("penny", "pence"))
_FRANC = Currency(Noun("franc suisse", "francs suisses"), _CENT)
_YEN = Currency(Noun("yen", "yens"))

FRENCH = Language(
    code="fr",
    grammar=Grammar(_number, _date, _time, _agree),
    decimal=",",
    grouping=" \u00a0\u202f.",
    point="virgule",
    minus="moins",
    plus="plus",
    to="à",
    about="environ",
    joint="et",
    of=_of,
    per="par",
    months=MONTHS,
    month_shorts={
        "janv": 1, "févr": 2, "fév": 2, "avr": 4, "juil": 7, "sept": 9, "oct": 10, "nov": 11, "déc": 12,
    },
    currencies={
        "€": _EURO, "EUR": _EURO, "$": _DOLLAR, "USD": _US_DOLLAR, "US$": _US_DOLLAR, "£": _POUND, "GBP": _POUND,
        "CHF": _FRANC, "¥": _YEN, "JPY": _YEN,
    },
    units=nouns("""
        mm, millimètre, millimètres
        cm, centimètre, centimètres
        m, mètre, mètres
        km, kilomètre, kilomètres
        mg, milligramme, milligrammes
        g, gramme, grammes
        kg, kilogramme, kilogrammes
        t, tonne, tonnes, f
        ml, millilitre, millilitres
        mL, millilitre, millilitres
        cl, centilitre, centilitres
        l, litre, litres
        L, litre, litres
        ms, milliseconde, millisecondes, f
        s, seconde, secondes, f
        min, minute, minutes, f
        h, heure, heures, f
        km/h, kilomètre par heure, kilomètres par heure
        m/s, mètre par seconde, mètres par seconde
        m², mètre carré, mètres carrés
        m2, mètre carré, mètres carrés
        km², kilomètre carré, kilomètres carrés
        m³, mètre cube, mètres cubes
        ha, hectare, hectares
        Ko, kilooctet, kilooctets
        Mo, mégaoctet, mégaoctets
        Go, gigaoctet, gigaoctets
        To, téraoctet, téraoctets
        MB, mégaoctet, mégaoctets
        GB, gigaoctet, gigaoctets
        Hz, hertz
        kHz, kilohertz
        MHz, mégahertz
        GHz, gigahertz
        W, watt, watts
        kW, kilowatt, kilowatts
        MW, mégawatt, mégawatts
        kWh, kilowattheure, kilowattheures
        V, volt, volts
        dB, décibel, décibels
        kcal, kilocalorie, kilocalories, f
        °C, degré Celsius, degrés Celsius
        °F, degré Fahrenheit, degrés Fahrenheit
        °, degré, degrés
        %, pour cent
        ‰, pour mille
    """),
    magnitudes=nouns("""
        k, mille
        M, million, millions
        Md, milliard, milliards
        Mds, milliard, milliards
        million, million, millions
        millions, million, millions
        milliard, milliard, milliards
        milliards, milliard, milliards
    """),
    signs={
        "=": "égale", "+": "plus", "-": "moins", "×": "fois", "*": "fois", "÷": "divisé par", "/": "divisé par",
        "<": "est inférieur à", ">": "est supérieur à", "≤": "est au plus", "≥": "est au moins",
        "≠": "est différent de", "≈": "environ", "±": "plus ou moins", "&": "et", "²": "au carré", "³": "au cube",
        "^": "puissance", "§": "paragraphe", "%": "pour cent", "√": "racine de", "°": "degrés",
    },
    address_signs={
        ".": "point", "/": "slash", "@": "arobase", "-": "tiret", "_": "tiret bas", ":": "deux-points", "+": "plus",
        "~": "tilde",
    },
    abbreviations=abbreviations("""
        p.ex, par exemple
        c.-à-d, c'est-à-dire
        m, Monsieur, dotted name
        mm, Messieurs, dotted name
        mme, Madame, name
        mmes, Mesdames, name
        mlle, Mademoiselle, name
        dr, Docteur, name
        pr, Professeur, name
        me, Maître, name
        st, Saint, name
        ste, Sainte, name
        etc, et cetera
        env, environ, dot
        cf, confer
        av, avenue, dot
        bd, boulevard, dot
        tél, téléphone, dot
        n°, numéro, number
        nº, numéro, number
        p, page, dotted number
        chap, chapitre, dotted number
        art, article, dotted number
        vol, volume, dotted number
    """),
    fractions={
        "1/2": "un demi", "1/3": "un tiers", "2/3": "deux tiers", "1/4": "un quart", "3/4": "trois quarts",
    },
    number_sign="numéro",
)  # fmt: skip
