"""Words that decide whether a full stop ends a sentence; case-folded, without the last full stop.

English in some depth, the commonest of German, French, Spanish, Italian, Portuguese, Dutch, Polish and Swedish. A word
that is also an everyday last word of a sentence ("no", "sun", "in") stands only where the context decides.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TITLES = _words("""
    mr mrs ms mx dr drs prof gen col maj sgt cpl capt cpt lt cmdr adm rev fr hon gov sen rep pres supt insp mt messrs
    mme mmes mlle mgr me hr frl dipl ing mag sra srta dra dña lic dott dottssa sig sigra avv arch exmo exma profa
    dhr mevr mw ds ks św
""")
"""Followed by a name, when written with a capital."""

CONTINUING = _words("""
    e.g eg i.e ie viz vs cf approx esp incl resp ca z.b d.h u.a o.ä s.o s.u i.d.r u.u bzw ggf vgl sog evtl inkl zzgl
    exkl p.ej p.ex bijv d.w.z m.b.t o.a np tzn tj m.in t.ex bl.a dvs
""")
"""Never the end of a sentence."""

NUMBERED = _words("""
    no nos nr núm num n° nº vol vols fig figs ch chap sec sect art arts eq par pt pp pg pág págs tab abs kap bd ed ver
    ext tel cap jan feb mar apr jun jul aug sep sept oct nov dec
""")
"""An abbreviation when a number follows."""

ENDING = _words("""
    etc al jr sr st ave blvd rd inc ltd co corp llc plc bros dept govt assn univ esq ft lb lbs oz hr hrs min max sq
    ph.d m.sc b.sc tue tues wed thu thurs fri usw usf ecc itp itd osv enz gmbh s.a
""")
"""May end a sentence: the word that follows decides."""

SENTENCE_OPENERS = _words("""
    the a an i he she it we they you this that these those there here and but so or if when while after before in on at
    for from with as what how why who where which is are was were do does did can could would will should may my your
    his her our their its then now also however meanwhile instead next finally let please yes no not one some many most
    all both each every because although though since today tomorrow yesterday
    der die das ich er sie es wir und aber el la los las yo él ella y pero le les il elle nous et mais je
""")
"""Words that begin a sentence far more often than a name."""

AFTER_ORDINALS = _words("""
    januar jänner februar märz april mai juni juli august september oktober november dezember jahrhundert jahrhunderts
    jahrhunderten klasse stock etappe
""")
"""What German puts behind an ordinal number, which is written with a full stop."""

FUNCTION_WORDS = _words("""
    a an the this that these those my your his her its our their some any no every each i you he she it we they who whom
    whose which what of to in on at by for from with without about into onto over under between through during before
    after as than and but or nor so yet if because while when where although though until unless since is are was were
    be been being am do does did have has had will would can could shall should may might must not very more most too
    der die das den dem des ein eine einen einem einer und oder aber zu mit von für auf im ist sind
    le la les un une des du de et ou à au aux que qui pour dans avec sur est sont
    el los las una unos y o del al en con por para es son se il lo gli i di che e per da nel della
    os do dos das em com um uma não het een van voor met op te
""")
"""Words that lean on the next one: speech does not pause behind them."""
