"""Names of languages in fastText models: lid.176's ISO 639 codes, and GlotLID's ISO 639-3 with a script."""

from __future__ import annotations

from functools import cache

# ISO 639-3 codes of the languages that have one of two letters in ISO 639-1 (macrolanguages' main members too).
_PAIRS = """
aar aa abk ab afr af aka ak twi ak amh am ara ar arb ar arg an asm as ava av aym ay ayr ay aze az azj az azb az
bak ba bam bm bel be ben bn bih bh bis bi bod bo bos bs bre br bul bg cat ca ces cs cha ch che ce chu cu chv cv
cor kw cos co cre cr cym cy dan da deu de div dv dzo dz ell el eng en epo eo est et ekk et eus eu ewe ee fao fo
fas fa pes fa fij fj fin fi fra fr fry fy ful ff fuv ff gla gd gle ga glg gl glv gv grn gn gug gn guj gu hat ht
hau ha heb he her hz hin hi hmo ho hrv hr hun hu hye hy ibo ig ido io iii ii iku iu ile ie ina ia ind id ipk ik
isl is ita it jav jv jpn ja kal kl kan kn kas ks kat ka kau kr kaz kk khm km kik ki kin rw kir ky kom kv kon kg
kor ko kua kj kur ku kmr ku lao lo lat la lav lv lvs lv lim li lin ln lit lt ltz lb lub lu lug lg mah mh mal ml
mar mr mkd mk mlg mg plt mg mlt mt mon mn khk mn mri mi msa ms zsm ms mya my nau na nav nv nbl nr nde nd ndo ng
nep ne npi ne nld nl nno nn nob no nor no nya ny oci oc oji oj ori or ory or orm om gaz om oss os pan pa pli pi
pol pl por pt pus ps pbt ps que qu quy qu roh rm ron ro run rn rus ru sag sg san sa sin si slk sk slv sl sme se
smo sm sna sn snd sd som so sot st spa es sqi sq als sq srd sc srp sr ssw ss sun su swa sw swh sw swe sv tah ty
tam ta tat tt tel te tgk tg tgl tl fil tl tha th tir ti ton to tsn tn tso ts tuk tk tur tr uig ug ukr uk urd ur
uzb uz uzn uz ven ve vie vi vol vo wln wa wol wo xho xh yid yi ydd yi yor yo zha za zho zh cmn zh zul zu
"""
_ALIASES = {"nb": "no"}


@cache
def _two_letters() -> dict[str, str]:
    words = _PAIRS.split()
    return dict(zip(words[::2], words[1::2], strict=True))


def canonical(code: str) -> str:
    """A recipe's code under the name that documents bear (`nb` is `no`)."""
    return _ALIASES.get(code, code)


def split_label(label: str) -> tuple[str, str | None]:
    """The language of a model's label and, where it says one, the script.

    ``__label__eng_Latn`` is ``en`` and ``Latn``; without a script the code is taken as it stands, since
    lid.176 means by ``als`` another language than ISO 639-3 does.
    """
    code, _, script = label.removeprefix("__label__").partition("_")
    return (_two_letters().get(code, code), script) if script else (canonical(code), None)
