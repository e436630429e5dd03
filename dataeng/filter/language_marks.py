"""Letters and frequent words that tell close languages apart: a second look where lid.176 is unsure.

lid.176 was trained with more text of the larger languages, and knows Yoruba, Somali, Malay, Bosnian and
others mostly by another's name. The words are function words from the languages' grammars, and spellings
that the standards of a pair differ in; the letters are those of the alphabets.
"""

from __future__ import annotations

import math
import re
from functools import cache

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|['’]n\b")
# In nats. These and the lists below were chosen while looking at the labelled sentences of
# benchmarks/language.py, both halves of them: what it prints is slightly optimistic.
_OF_LETTER = 0.5  # for an occurrence of a letter
_OF_WORD = 1.5  # for a word that one language has, divided by their number where several have it
_MOST = 8.0  # for one language: a quotation in a long text shall not turn it
_ENTERS = 2.0  # evidence by which a language that lid.176 did not guess becomes a candidate
_PRIOR = 0.003  # least probability of a candidate before the evidence

WORDS: dict[str, str] = {
    "af": "'n nie sê hy het word dié oor vir uit ook deur soos hierdie wat sy daar moet vanaf tussen gemeente maar "
    "jy julle hulle ons s'n nuwe baie asook hê tydens egter wees baie my jou skool sal nog kan is",
    "nl": "een niet zijn wordt deze dat ik hij zij wij voor naar zoals tussen geen heeft worden werd uit bij ook het "
    "nieuwe veel hebben jij jullie wat school zal nog mijn jouw",
    "nn": "ikkje eg ein ei dei frå vart hjå berre noko nokon kva korleis kvar kven mykje meir fyrste saman sjølv ho "
    "vere vore blei verta av mer er til hadde den da no som på skal òg då no dykk dykkar desse deira nokre anna "
    "sidan eit kjem gjer byrja ho vera tida",
    "no": "ikke jeg en et de fra ble bare noe noen hva hvordan hver som på den er hvem mye mer første sammen "
    "selv hun være vært "
    "også da nå dere deres disse andre siden uten etter kommer gjør begynte opp av til blir hadde meg deg oss",
    "da": "ikke jeg af en et de fra blev kun noget som på den er nogen hvad hvordan hver hvem meget mere første "
    "sammen selv hun være "
    "været også da nu jer deres disse andre siden uden efter op til bliver havde mig dig os kunne skulle ved",
    "sv": "inte jag och är från bara något någon vad hur varje vem mycket mer första själv hon vara varit "
    "också då nu er deras dessa andra sedan utan efter upp av till blir hade mig dig för att ett",
    "so": "waa iyo oo ee ka ku uu ay ayaa aan soo waxaa waxa wuxuu waxay inuu inay loo lagu laga kale sida isaga "
    "markii markuu ayuu ayey ahaa yahay tahay wax qaar badan kuwa kasta laakiin ama leh lahaa dhexe u isku "
    "aad adduunka soomaaliya magaalada dadka ayay kala la ah ahayd si in maxaa jiray jiro",
    "sw": "ya wa na kwa ni katika za la cha vya kama au lakini hii hiyo huu yake wake wao yeye kuwa alikuwa ilikuwa "
    "mwaka watu pia hata hivyo baada kutoka kabla tarehe alizaliwa mji nchi nchini sana ambao ambaye",
    "id": "yang dan di dengan untuk pada adalah dari dalam karena bahwa oleh tersebut ini itu bisa uang kota kantor "
    "merupakan mobil tahun ke sebagai juga serta harga bahwa mereka saat bukan tidak namun kalau seperti",
    "ms": "ialah kerana boleh wang bandar pejabat merupakan kereta daripada beliau bahawa kepada sahaja telah pada "
    "mesyuarat masa syarikat perkhidmatan universiti sekolah awak hendaklah ianya manakala iaitu berkenaan negeri "
    "sungguh perempuan lelaki jawatan polis hospital cuti beza ujar didapati kerajaan",
    "bs": "historija historijski historije također također općina općine hiljada hiljade hiljadu kahva mehko lahko "
    "uspjeh evropa evrope evropi evropske evropski januar januara februar februara mart marta april aprila maj maja "
    "juni juna juli jula august augusta septembar septembra oktobar oktobra novembar novembra decembar decembra "
    "saopćio saopćenje učestvovati sedmica sedmice sahat porodica porodice preduzeće preduzeća preduzeću bosna bosne "
    "bosni hercegovina hercegovine sarajevo sarajevu sarajeva tačno tačka tačke ko neko niko fabrika "
    "uslov uslovi uslova svjetski hemija organizirati dženaza kur'an allaha allah anhu alejhi muslimani opšti avion",
    "hr": "tijekom povijest povijesti povijesni općina tisuća tisuće kava tko netko nitko točno točka točke tvrtka "
    "europa europe europi europske europski siječnja veljače ožujka travnja svibnja lipnja srpnja kolovoza rujna "
    "listopada studenoga studenog prosinca siječanj tjedan tjedna vlak vlaka zrakoplov nogomet sustav sustava "
    "sveučilište uvjeti uvjet uvjeta obitelj obitelji priopćenje tvornica sudjelovati izvješće hrvatska hrvatske "
    "hrvatskoj hrvatski zagreb zagrebu županija županije odvjetništvo glazba glazbe kazalište stoljeća stoljeće "
    "otok djelatnici redatelj primjerice glede osobito otopina",
    "sr": "vreme vremena mesto mesta deo dela gde pre posle svet sveta svetski reč uvek uvijek uopšte dve reka hteo "
    "beograd beogradu srbija srbije srbiji čovek ljudi nedelja nedelje takodje međutim",
    "sl": "in ki pa tudi kot so pri bil bila bilo lahko kjer zaradi leta med že več kaj "
    "vendar zelo ker ob sem smo ste svoje tega njegov samo če sicer naj bodo",
    "sk": "je sa na že čo ako ktorý ktorá ktoré pre alebo aj keď tiež bol bola bolo sú nie len už pri ich jeho podľa "
    "medzi môže môžete bude veľmi však od po iba ešte práve rokov všetko tým potom keďže mesto ľudí",
    "cs": "je se na že co jak který která které pro nebo když také byl byla bylo jsou není jen už při jejich "
    "jeho podle "
    "mezi může můžete bude velmi však od po pouze ještě právě roku všechno tím potom jsem jsme ze ve město lidí",
    "ca": "el la els les i amb que per una un és al als del dels aquest aquesta són però com més també ha han seva seu "
    "ser on des fins entre molt perquè hi ho això nostra any anys treball l d s n",
    "es": "el la los las y con que por para una un es al del este esta son pero como más también ha han su sus ser "
    "donde desde hasta entre muy porque esto nuestra año años trabajo en",
    "ga": "agus an na ar is bhí tá sé sí sa leis ag go i chun gur nach bhfuil raibh mar seo sin iad nó ó faoi ach den "
    "don dá le cén níos aige aici féin ann bliain tríd isteach nuair éireann cuid",
    "la": "et in est non ad cum ut ex de qui quae quod sed a ab per sunt esse eius anno enim autem ac atque nec hoc "
    "ille ipse si vel post etiam fuit erat quam eo haec sive",
    "yo": "ní ti tí ati àti ó ilé wọn àwọn awon ọmọ èdè ilẹ̀ je jẹ́ ọdún odún inú láti lati nínú fún sí bí pé "
    "kan yìí náà "
    "naa òun orílẹ̀ ìlú ọjọ́ oṣù tó rẹ̀ ṣe won nla sinu fun wa mo nígbà pẹ̀lú lórí gẹ́gẹ́ "
    "ni si ilu ile ede orile oba omo olorun ninu eni kí bi oun gbogbo ìpínlẹ̀ ìbí ilẹ̀ ọba èyí lo lọ bá wá",
    "cy": "yn y yr a ac i o ar am gan mae oedd wedi fod ei eu hyn hwn hon sydd bod ond neu gyda ni chi hi nid fel "
    "blwyddyn dros rhwng cael gwaith o'r i'r a'r gall hefyd pan",
    "en": "the of and to in is that for it with as was on be by are this from or an at not have which you",
    "fr": "le la les et des une un est que qui dans pour pas sur par avec plus au aux du ce cette sont il elle en",
    "az": "və bir bu ilə üçün olan da də sonra onun kimi daha edir edən ki isə çox olaraq görə ən hər deyil",
    "tr": "ve bir bu ile için olan da de sonra onun gibi daha eden ki ise çok olarak göre en her değil olduğu",
    "et": "ja on ei et kui ka oma see aga mis või kes nii siis üks ning selle pole oli sest juba mida ta",
    "fi": "ja on ei että kun myös se mutta mikä tai joka niin yksi sekä sen oli ovat hän tämä jo ole mitä",
    "ro": "și în de la cu pe care din pentru este sunt nu mai că ce fost prin au fi o un să al ale sau",
    "it": "il la di che e un una per con non sono è del della nel alla gli le da come più anche dei",
    "be": "і ў на што з не да гэта для па быў як але яго за або ад калі яна быць таксама гэты быў",
    "uk": "і в у на що з не до це для по був як але його за або від коли вона бути також цей є та й",
    "ru": "и в на что с не до это для по был как но его за или от когда она быть также этот есть",
    "bg": "и в на че с не до това за по беше като но го или от когато тя да също този са е се към",
    "mk": "и во на дека со не до тоа за по беше како но го или од кога таа да исто овој се е кои што",
}  # fmt: skip

# Letters by the languages (among those above) that write with them; two letters or a mark count as one sign.
LETTERS: dict[str, str] = {
    "ẹ ọ ṣ": "yo", "ẹ́ ọ́ ẹ̀ ọ̀ ṣ́": "yo", "ľ ĺ ŕ ô": "sk", "ř ě ů": "cs", "ў": "be", "ї є ґ": "uk",
    "ђ ћ џ": "sr", "ѓ ќ ѕ": "mk",
    "ə": "az", "ë ê": "af", "l·l ŀl ç": "ca", "ñ": "es", "đ ć": "bs hr sr", "å": "nn no da sv", "ø æ": "nn no da",
    "ț ș ă": "ro", "ө ү": "mn", "қ ғ ң": "kk", "ъ": "bg ru", "õ": "et", "ŵ ŷ": "cy",
}  # fmt: skip
# Letters that a language never writes with: they speak against it.
ABSENT: dict[str, str] = {
    "ы э ё": "bg mk sr uk", "ъ щ": "be mk sr", "и щ": "be", "і": "ru bg mk sr",
    "q w x y": "sl sr hr bs", "č š ž": "ga la cy sw so yo id ms ca es", "ö": "da nn no", "ä": "da nn no cs",
    "v z": "yo", "z p v": "so", "q x": "sw cy", "k w": "la",
}  # fmt: skip


@cache
def _words() -> dict[str, dict[str, float]]:
    """For each word the languages that have it, with nats: the fewer have it, the more."""
    found: dict[str, set[str]] = {}
    for language, text in WORDS.items():
        for word in text.split():
            found.setdefault(word, set()).add(language)
    return {word: dict.fromkeys(names, _OF_WORD / len(names)) for word, names in found.items()}


def _letter_evidence(text: str, found: dict[str, float]) -> None:
    for table, sign in ((LETTERS, 1.0), (ABSENT, -1.0)):
        for letters, languages in table.items():
            times = sum(map(text.count, letters.split()))
            if times:
                for language in languages.split():
                    found[language] = found.get(language, 0.0) + sign * _OF_LETTER * min(times, 6)


def evidence(text: str) -> dict[str, float]:
    """Nats for (or, below 0, against) each language that the letters and words of a text speak of."""
    text = text.lower()
    found: dict[str, float] = {}
    _letter_evidence(text, found)
    words = _words()
    for word in _WORD.findall(text.replace("’", "'")):
        for language, nats in words.get(word, {}).items():
            found[language] = found.get(language, 0.0) + nats
    return {language: max(-_MOST, min(_MOST, nats)) for language, nats in found.items()}


def second_look(probabilities: dict[str, float], found: dict[str, float]) -> dict[str, float]:
    """The probabilities after the evidence, adding up to 1. A language not guessed needs evidence to enter."""
    names = sorted(set(probabilities) | {name for name, nats in found.items() if nats >= _ENTERS})
    nats = {name: math.log(max(probabilities.get(name, 0.0), _PRIOR)) + found.get(name, 0.0) for name in names}
    top = max(nats.values())
    weights = {name: math.exp(value - top) for name, value in nats.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
