"""Spanish: its words for signs, units, currencies and abbreviations, and how dates and times are read."""

from __future__ import annotations

import re
from dataclasses import replace

from num2words import num2words  # type: ignore[import-untyped]

from streaming.normalization_languages import Currency, Grammar, Language, Noun, abbreviations, nouns

MONTHS = (
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
)
_HUNDREDS = re.compile(r"(?<=[cs])ientos\b(?!.*millones)|(?<=quin)ientos\b(?!.*millones)")


def _number(value: int) -> str:
    return str(num2words(value, lang="es"))


def _date(day: int, month: int, year: int | None, _before: str) -> str:
    said = f"{'primero' if day == 1 else _number(day)} de {MONTHS[month - 1]}"
    return said if year is None else f"{said} de {_number(year)}"


def _time(hour: int, minute: int) -> str:
    words = _agree(_number(hour), True)
    return f"{words} en punto" if minute == 0 else f"{words} y {_number(minute)}"


def _agree(words: str, feminine: bool) -> str:
    if feminine:
        words = _HUNDREDS.sub("ientas", words)
        return words[:-1] + "a" if words.endswith("uno") else words
    return re.sub(r"veintiuno$", "veintiún", words) if words.endswith("veintiuno") else re.sub(r"\buno$", "un", words)


_CENT = Noun("céntimo", "céntimos")
_CENTAVO = Noun("centavo", "centavos")
_EURO, _DOLLAR = Currency(Noun("euro", "euros"), _CENT), Currency(Noun("dólar", "dólares"), Noun("centavo", "centavos"))
_US_DOLLAR = Currency(Noun("dólar estadounidense", "dólares estadounidenses"), _CENTAVO)
_POUND = Currency(Noun("libra", "libras", feminine=True), Noun("penique", "peniques"))
_PESO = Currency(Noun("peso", "pesos"), _CENTAVO)
_YEN = Currency(Noun("yen", "yenes"))

SPANISH = Language(
    code="es",
    grammar=Grammar(_number, _date, _time, _agree),
    decimal=",",
    grouping=". \u00a0\u202f",
    point="coma",
    minus="menos",
    plus="más",
    to="a",
    about="unos",
    joint="con",
    of=lambda noun: f" de {noun}",
    per="por",
    months=MONTHS,
    month_shorts={
        "ene": 1, "feb": 2, "mar": 3, "abr": 4, "jun": 6, "jul": 7, "ago": 8, "sep": 9, "sept": 9, "oct": 10,
        "nov": 11, "dic": 12,
    },
    currencies={
        "€": _EURO, "EUR": _EURO, "$": _DOLLAR, "USD": _US_DOLLAR, "US$": _US_DOLLAR, "£": _POUND, "GBP": _POUND,
        "MXN": _PESO, "¥": _YEN, "JPY": _YEN,
    },
    units=nouns("""
        mm, milímetro, milímetros
        cm, centímetro, centímetros
        m, metro, metros
        km, kilómetro, kilómetros
        mg, miligramo, miligramos
        g, gramo, gramos
        kg, kilogramo, kilogramos
        t, tonelada, toneladas, f
        ml, mililitro, mililitros
        l, litro, litros
        L, litro, litros
        s, segundo, segundos
        min, minuto, minutos
        h, hora, horas, f
        km/h, kilómetro por hora, kilómetros por hora
        m/s, metro por segundo, metros por segundo
        m², metro cuadrado, metros cuadrados
        m2, metro cuadrado, metros cuadrados
        km², kilómetro cuadrado, kilómetros cuadrados
        m³, metro cúbico, metros cúbicos
        ha, hectárea, hectáreas, f
        KB, kilobyte, kilobytes
        MB, megabyte, megabytes
        GB, gigabyte, gigabytes
        TB, terabyte, terabytes
        Hz, hercio, hercios
        kHz, kilohercio, kilohercios
        MHz, megahercio, megahercios
        GHz, gigahercio, gigahercios
        W, vatio, vatios
        kW, kilovatio, kilovatios
        MW, megavatio, megavatios
        kWh, kilovatio hora, kilovatios hora
        V, voltio, voltios
        dB, decibelio, decibelios
        kcal, kilocaloría, kilocalorías, f
        °C, grado Celsius, grados Celsius
        °F, grado Fahrenheit, grados Fahrenheit
        °, grado, grados
        %, por ciento
        ‰, por mil
    """),
    magnitudes=nouns("""
        M, millón, millones
        millón, millón, millones
        millones, millón, millones
    """),
    signs={
        "=": "es igual a", "+": "más", "-": "menos", "×": "por", "*": "por", "÷": "entre", "/": "entre",
        "<": "es menor que", ">": "es mayor que", "≤": "es como máximo", "≥": "es como mínimo",
        "≠": "es distinto de", "≈": "es aproximadamente", "±": "más o menos", "&": "y", "²": "al cuadrado",
        "³": "al cubo", "^": "elevado a", "§": "sección", "%": "por ciento", "√": "la raíz de", "°": "grados",
    },
    address_signs={
        ".": "punto", "/": "barra", "@": "arroba", "-": "guion", "_": "guion bajo", ":": "dos puntos", "+": "más",
        "~": "tilde",
    },
    abbreviations=abbreviations("""
        p.ej, por ejemplo
        sr, señor, name
        sra, señora, name
        srta, señorita, name
        dr, doctor, name
        dra, doctora, name
        prof, profesor, name
        ud, usted, dot
        uds, ustedes, dot
        etc, etcétera
        aprox, aproximadamente, dot
        avda, avenida, dot
        tel, teléfono, dot
        n.º, número, number
        nº, número, number
        n°, número, number
        núm, número, dotted number
        pág, página, dotted number
        págs, páginas, dotted number
        cap, capítulo, dotted number
        art, artículo, dotted number
        vol, volumen, dotted number
    """),
    fractions={
        "1/2": "un medio", "1/3": "un tercio", "2/3": "dos tercios", "1/4": "un cuarto", "3/4": "tres cuartos",
    },
    leading=frozenset(("de",)),
    number_sign="número",
    hashtag="almohadilla",
)  # fmt: skip
AMERICAN = replace(SPANISH, decimal=".", grouping=", \u00a0\u202f", point="punto")
