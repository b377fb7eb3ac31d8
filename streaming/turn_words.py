"""Words that tell whether a sentence is whole, in four languages: pure data for the embedded judge of turns."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPEN_WORDS: dict[str, frozenset[str]] = {
    "en": _words(
        """a an the this these those my your his its our their some any every each no another which whose
        and or but nor so because although though unless until while since if whether than that as when where whenever
        of to in on at for with from by about into onto over under between through during without within against
        behind beside toward towards upon near like per
        i you he she we they who what how why there
        am is are was were be been being do does did have has had will would shall should can could may might must
        i'm you're he's she's it's we're they're i've you've we've they've i'll you'll he'll she'll we'll they'll
        i'd you'd he'd she'd we'd they'd that's there's here's what's who's let's
        don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't haven't hasn't
        very quite too rather really just also only even not more most less such almost
        want need going gonna wanna mr mrs ms dr saint"""
    ),
    "de": _words(
        """der die das den dem des ein eine einen einem einer eines mein meine dein deine sein seine ihr ihre unser
        unsere kein keine dieser diese dieses jeder jede und oder aber sondern denn weil dass ob wenn als obwohl damit
        bevor nachdem während bis seit von zu zum zur in im ins an am auf für mit aus bei beim nach über unter vor
        zwischen durch ohne gegen um ich du er sie es wir ihr bin bist ist sind war waren habe hast hat haben hatte
        werde wird werden würde kann können muss müssen soll will möchte sehr ganz nicht noch auch nur wie was"""
    ),
    "fr": _words(
        """le la les l un une des du de d au aux mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs ce cet
        cette ces et ou mais ni car donc que qu si quand comme parce lorsque puisque dans sur sous avec sans pour par en
        vers chez entre contre depuis pendant je j tu il elle on nous vous ils elles suis es est sommes êtes sont étais
        était ai as a avons avez ont vais va vont peux peut veux veut très plus moins trop ne n"""
    ),
    "es": _words(
        """el la los las un una unos unas mi mis tu tus su sus nuestro nuestra este esta estos estas ese esa y o u pero
        ni porque que si cuando aunque mientras de del a al en con sin por para sobre entre hacia desde hasta contra
        yo él ella nosotros ellos soy eres es somos son estoy está están era he has ha hemos han voy va vamos puede
        puedo quiero quiere muy más menos tan no"""
    ),
}
"""Words after which a sentence goes on: articles, conjunctions, prepositions, subjects, auxiliaries, intensifiers."""
HESITATIONS = _words("um uh uhm umm erm er hmm hm mm ah eh äh ähm öh euh mmm")
DISCOURSE: dict[str, frozenset[str]] = {"en": _words("well basically actually anyway you-know i-mean let's-see")}
"""Words with which people hold the floor when nothing follows them; two of them are joined by a hyphen."""
WHOLE: dict[str, frozenset[str]] = {
    "en": _words(
        """yes yeah yep no nope okay ok sure right exactly absolutely thanks hello hi goodbye bye please
        correct perfect great fine stop help nothing never"""
    ),
    "de": _words("ja nein okay danke genau hallo tschüss bitte stimmt gut"),
    "fr": _words("oui non merci bonjour salut exactement parfait"),
    "es": _words("sí no gracias hola adiós vale claro perfecto"),
}
"""Answers that are whole in one word or two."""
ALONE = _words("what why who how where when")
"""English words that go on a sentence, but are a whole one alone."""
ECHOES = _words(
    """am is are was were do does did have has had will would can could should must don't didn't can't won't"""
)
"""With a pronoun before it: "so do I" is whole, and "yes, she is"."""
PRONOUNS = _words("i you he she it we they")
NUMBERS = _words(
    """zero oh one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand double triple"""
)
