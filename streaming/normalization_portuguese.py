"""Portuguese: its words for signs, units, currencies and abbreviations, and how dates and times are read."""

from __future__ import annotations

import re
from dataclasses import replace

from num2words import num2words  # type: ignore[import-untyped]

from streaming.normalization_languages import Currency, Grammar, Language, Noun, abbreviations, nouns

MONTHS = (
    "janeiro",
    "fevereiro",
    "março",
    "abril",
    "maio",
    "junho",
    "julho",
    "agosto",
    "setembro",
    "outubro",
    "novembro",
    "dezembro",
)
_HUNDREDS = re.compile(r"(?<=zent)os\b|(?<=cent)os\b|(?<=hent)os\b")


def _number(value: int) -> str:
    return str(num2words(value, lang="pt"))


def _date(day: int, month: int, year: int | None, _before: str) -> str:
    said = f"{'primeiro' if day == 1 else _number(day)} de {MONTHS[month - 1]}"
    return said if year is None else f"{said} de {_number(year)}"


def _time(hour: int, minute: int) -> str:
    words = f"{_agree(_number(hour), True)} {'hora' if hour == 1 else 'horas'}"
    return words if minute == 0 else f"{words} e {_number(minute)}"


def _agree(words: str, feminine: bool) -> str:
    if not feminine or "milh" in words:
        return words
    words = _HUNDREDS.sub("as", words)
    return re.sub(r"\bdois$", "duas", re.sub(r"\bum$", "uma", words))


_CENT = Noun("cêntimo", "cêntimos")
_CENTAVO = Noun("centavo", "centavos")
_EURO, _DOLLAR = Currency(Noun("euro", "euros"), _CENT), Currency(Noun("dólar", "dólares"), _CENTAVO)
_US_DOLLAR = Currency(Noun("dólar americano", "dólares americanos"), _CENTAVO)
_POUND = Currency(Noun("libra", "libras", feminine=True), Noun("péni", "pence"))
_REAL = Currency(Noun("real", "reais"), _CENTAVO)
_YEN = Currency(Noun("iene", "ienes"))

PORTUGUESE = Language(
    code="pt",
    grammar=Grammar(_number, _date, _time, _agree),
    decimal=",",
    grouping=". \u00a0\u202f",
    point="vírgula",
    minus="menos",
    plus="mais",
    to="a",
    about="cerca de",
    joint="e",
    of=lambda noun: f" de {noun}",
    per="por",
    months=MONTHS,
    month_shorts={
        "jan": 1, "fev": 2, "mar": 3, "abr": 4, "mai": 5, "jun": 6, "jul": 7, "ago": 8, "set": 9, "out": 10,
        "nov": 11, "dez": 12,
    },
    currencies={
        "€": _EURO, "EUR": _EURO, "$": _DOLLAR, "USD": _US_DOLLAR, "US$": _US_DOLLAR, "R$": _REAL, "BRL": _REAL,
        "£": _POUND, "GBP": _POUND, "¥": _YEN, "JPY": _YEN,
    },
    units=nouns("""
        mm, milímetro, milímetros
        cm, centímetro, centímetros
        m, metro, metros
        km, quilómetro, quilómetros
        mg, miligrama, miligramas
        g, grama, gramas
        kg, quilograma, quilogramas
        t, tonelada, toneladas, f
        ml, mililitro, mililitros
        l, litro, litros
        L, litro, litros
        s, segundo, segundos
        min, minuto, minutos
        h, hora, horas, f
        km/h, quilómetro por hora, quilómetros por hora
        m/s, metro por segundo, metros por segundo
        m², metro quadrado, metros quadrados
        m2, metro quadrado, metros quadrados
        km², quilómetro quadrado, quilómetros quadrados
        m³, metro cúbico, metros cúbicos
        ha, hectare, hectares
        KB, quilobyte, quilobytes
        MB, megabyte, megabytes
        GB, gigabyte, gigabytes
        TB, terabyte, terabytes
        Hz, hertz
        kHz, quilohertz
        MHz, megahertz
        GHz, gigahertz
        W, watt, watts
        kW, quilowatt, quilowatts
        MW, megawatt, megawatts
        kWh, quilowatt-hora, quilowatts-hora
        V, volt, volts
        dB, decibel, decibéis
        kcal, quilocaloria, quilocalorias, f
        °C, grau Celsius, graus Celsius
        °F, grau Fahrenheit, graus Fahrenheit
        °, grau, graus
        %, por cento
        ‰, por mil
    """),
    magnitudes=nouns("""
        mil, mil
        milhão, milhão, milhões
        milhões, milhão, milhões
        bilhão, bilhão, bilhões
        bilhões, bilhão, bilhões
        bi, bilhão, bilhões
        mi, milhão, milhões
    """),
    signs={
        "=": "é igual a", "+": "mais", "-": "menos", "×": "vezes", "*": "vezes", "÷": "dividido por",
        "/": "dividido por", "<": "é menor que", ">": "é maior que", "≤": "é no máximo", "≥": "é no mínimo",
        "≠": "é diferente de", "≈": "é cerca de", "±": "mais ou menos", "&": "e", "²": "ao quadrado",
        "³": "ao cubo", "^": "elevado a", "§": "parágrafo", "%": "por cento", "√": "a raiz de", "°": "graus",
    },
    address_signs={
        ".": "ponto", "/": "barra", "@": "arroba", "-": "hífen", "_": "sublinhado", ":": "dois pontos", "+": "mais",
        "~": "til",
    },
    abbreviations=abbreviations("""
        p.ex, por exemplo
        sr, senhor, name
        sra, senhora, name
        srta, senhorita, name
        dr, doutor, name
        dra, doutora, name
        prof, professor, name
        profa, professora, name
        etc, et cetera
        aprox, aproximadamente, dot
        av, avenida, dot
        tel, telefone, dot
        n.º, número, number
        nº, número, number
        n°, número, number
        pág, página, dotted number
        págs, páginas, dotted number
        cap, capítulo, dotted number
        art, artigo, dotted number
        vol, volume, dotted number
    """),
    fractions={
        "1/2": "um meio", "1/3": "um terço", "2/3": "dois terços", "1/4": "um quarto", "3/4": "três quartos",
    },
    leading=frozenset(("de",)),
    number_sign="número",
)  # fmt: skip
_KILO = {sign: replace(noun, one=noun.one.replace("quiló", "quilô"), many=noun.many.replace("quiló", "quilô"))
         for sign, noun in PORTUGUESE.units.items()}  # fmt: skip
BRAZILIAN = replace(PORTUGUESE, code="pt_BR", units=_KILO)
