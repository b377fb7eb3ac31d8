"""Italian: its words for signs, units, currencies and abbreviations, and how dates and times are read."""

from __future__ import annotations

from num2words import num2words  # type: ignore[import-untyped]

from streaming.normalization_languages import Currency, Grammar, Language, Noun, abbreviations, nouns

MONTHS = (
    "gennaio",
    "febbraio",
    "marzo",
    "aprile",
    "maggio",
    "giugno",
    "luglio",
    "agosto",
    "settembre",
    "ottobre",
    "novembre",
    "dicembre",
)


def _number(value: int) -> str:
    return str(num2words(value, lang="it"))


def _date(day: int, month: int, year: int | None, _before: str) -> str:
    said = f"{'primo' if day == 1 else _number(day)} {MONTHS[month - 1]}"
    return said if year is None else f"{said} {_number(year)}"


def _time(hour: int, minute: int) -> str:
    words = _agree(_number(hour), True)
    return words if minute == 0 else f"{words} e {_number(minute)}"


def _agree(words: str, feminine: bool) -> str:
    if words != "uno":
        return words
    return "una" if feminine else "un"


_CENT = Noun("centesimo", "centesimi")
_EURO, _DOLLAR = Currency(Noun("euro", "euro"), _CENT), Currency(Noun("dollaro", "dollari"), _CENT)
_US_DOLLAR = Currency(Noun("dollaro statunitense", "dollari statunitensi"), _CENT)
_POUND = Currency(Noun("sterlina", "sterline", feminine=True), Noun("penny", "penny"))
_FRANC = Currency(Noun("franco svizzero", "franchi svizzeri"), _CENT)
_YEN = Currency(Noun("yen", "yen"))

ITALIAN = Language(
    code="it",
    grammar=Grammar(_number, _date, _time, _agree),
    decimal=",",
    grouping=". '’\u00a0\u202f",
    point="virgola",
    minus="meno",
    plus="più",
    to="a",
    about="circa",
    joint="e",
    of=lambda noun: f" di {noun}",
    per="al",
    months=MONTHS,
    month_shorts={
        "gen": 1, "feb": 2, "mar": 3, "apr": 4, "mag": 5, "giu": 6, "lug": 7, "ago": 8, "set": 9, "ott": 10,
        "nov": 11, "dic": 12,
    },
    currencies={
        "€": _EURO, "EUR": _EURO, "$": _DOLLAR, "USD": _US_DOLLAR, "US$": _US_DOLLAR, "£": _POUND, "GBP": _POUND,
        "CHF": _FRANC, "¥": _YEN, "JPY": _YEN,
    },
    units=nouns("""
        mm, millimetro, millimetri
        cm, centimetro, centimetri
        m, metro, metri
        km, chilometro, chilometri
        mg, milligrammo, milligrammi
        g, grammo, grammi
        kg, chilogrammo, chilogrammi
        t, tonnellata, tonnellate, f
        ml, millilitro, millilitri
        l, litro, litri
        L, litro, litri
        s, secondo, secondi
        min, minuto, minuti
        h, ora, ore, f
        km/h, chilometro all'ora, chilometri all'ora
        m/s, metro al secondo, metri al secondo
        m², metro quadrato, metri quadrati
        mq, metro quadrato, metri quadrati
        km², chilometro quadrato, chilometri quadrati
        m³, metro cubo, metri cubi
        ha, ettaro, ettari
        KB, kilobyte
        MB, megabyte
        GB, gigabyte
        TB, terabyte
        Hz, hertz
        kHz, chilohertz
        MHz, megahertz
        GHz, gigahertz
        W, watt
        kW, chilowatt
        MW, megawatt
        kWh, chilowattora
        V, volt
        dB, decibel
        kcal, chilocaloria, chilocalorie, f
        °C, grado Celsius, gradi Celsius
        °F, grado Fahrenheit, gradi Fahrenheit
        °, grado, gradi
        %, per cento
        ‰, per mille
    """),
    magnitudes=nouns("""
        mln, milione, milioni
        mld, miliardo, miliardi
        milione, milione, milioni
        milioni, milione, milioni
        miliardo, miliardo, miliardi
        miliardi, miliardo, miliardi
    """),
    signs={
        "=": "è uguale a", "+": "più", "-": "meno", "×": "per", "*": "per", "÷": "diviso", "/": "diviso",
        "<": "è minore di", ">": "è maggiore di", "≤": "è al massimo", "≥": "è almeno", "≠": "è diverso da",
        "≈": "è circa", "±": "più o meno", "&": "e", "²": "al quadrato", "³": "al cubo", "^": "elevato a",
        "§": "paragrafo", "%": "per cento", "√": "la radice di", "°": "gradi",
    },
    address_signs={
        ".": "punto", "/": "barra", "@": "chiocciola", "-": "trattino", "_": "trattino basso", ":": "due punti",
        "+": "più", "~": "tilde",
    },
    abbreviations=abbreviations("""
        p.es, per esempio
        sig, signor, name
        sig.ra, signora, name
        dott, dottor, name
        dott.ssa, dottoressa, name
        prof, professor, name
        ing, ingegner, dotted name
        avv, avvocato, dotted name
        ecc, eccetera
        tel, telefono, dot
        n, numero, dotted number
        n°, numero, number
        nº, numero, number
        pag, pagina, dotted number
        cap, capitolo, dotted number
        art, articolo, dotted number
        vol, volume, dotted number
    """),
    fractions={
        "1/2": "un mezzo", "1/3": "un terzo", "2/3": "due terzi", "1/4": "un quarto", "3/4": "tre quarti",
    },
    number_sign="numero",
)  # fmt: skip
