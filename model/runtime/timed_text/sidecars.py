"""Which subtitle files lie beside a video, by their names: `movie.srt`, `movie.en.vtt` for `movie.mp4`."""

import re

SUBTITLE_EXTENSIONS = (".srt", ".vtt", ".ass", ".ssa", ".sub", ".ttml")
#: What may follow the language, or stand in its place.
_REMARKS = frozenset({"forced", "sdh", "cc", "hi", "default", "orig", "original", "auto", "full", "foreign"})
_CODE = re.compile(r"([a-z]{2,3})((?:-[a-z0-9]{2,8})*)")
#: Codes of three letters as containers and file names have them, and the codes of two letters for them.
_LONG = (
    "afr=af alb=sq amh=am ara=ar arm=hy aze=az baq=eu bel=be ben=bn bos=bs bul=bg bur=my cat=ca ces=cs "
    "chi=zh cze=cs dan=da deu=de dut=nl ell=el eng=en est=et eus=eu fas=fa fin=fi fra=fr fre=fr geo=ka "
    "ger=de gle=ga glg=gl gre=el guj=gu heb=he hin=hi hrv=hr hun=hu hye=hy ice=is ind=id isl=is ita=it "
    "jpn=ja kan=kn kat=ka kaz=kk khm=km kor=ko lao=lo lat=la lav=lv lit=lt mac=mk mal=ml mar=mr may=ms "
    "mkd=mk mon=mn msa=ms mya=my nep=ne nld=nl nno=nn nob=nb nor=no pan=pa per=fa pol=pl por=pt ron=ro "
    "rum=ro rus=ru sin=si slk=sk slo=sk slv=sl som=so spa=es sqi=sq srp=sr swa=sw swe=sv tam=ta tel=te "
    "tgl=tl tha=th tur=tr ukr=uk urd=ur uzb=uz vie=vi wel=cy zho=zh zul=zu"
)
_ENGLISH = (
    "arabic=ar chinese=zh czech=cs danish=da dutch=nl english=en finnish=fi french=fr german=de greek=el "
    "hebrew=he hindi=hi hungarian=hu italian=it japanese=ja korean=ko norwegian=no polish=pl "
    "portuguese=pt romanian=ro russian=ru spanish=es swedish=sv thai=th turkish=tr ukrainian=uk "
    "vietnamese=vi"
)
_LONG_CODES = {pair[:3]: pair[4:] for pair in _LONG.split()}
_NAMES = {pair[:-3]: pair[-2:] for pair in _ENGLISH.split()}
_UNKNOWN = frozenset({"und", "mis", "mul", "zxx", "unk"})


def language_code(text: str | None) -> str | None:
    """A language as a code such as `en`, `pt-BR` or `zh-Hans`; None where the text names none.

    Args:
        text: a code of two or three letters with a region or script, or an English name.
    """
    lowered = (text or "").strip().lower().replace("_", "-")
    if lowered in _NAMES:
        return _NAMES[lowered]
    match = _CODE.fullmatch(lowered)
    if match is None or match[1] in _UNKNOWN:
        return None
    parts = [part for part in match[2].split("-") if part and part not in _REMARKS]
    regions = [part.upper() if len(part) == 2 else part.title() for part in parts]
    return "-".join([_LONG_CODES.get(match[1], match[1]), *regions])


def subtitle_language(video_stem: str, subtitle_name: str) -> str | None:
    """The language that a subtitle file's name gives; empty where it gives none.

    Args:
        video_stem: a video's file name without its extension.
        subtitle_name: the file name of subtitles in the same folder.

    Returns:
        None where these are no subtitles of this video.
    """
    stem, dot, extension = subtitle_name.rpartition(".")
    if f"{dot}{extension}".lower() not in SUBTITLE_EXTENSIONS or not stem.startswith(video_stem):
        return None
    rest = stem[len(video_stem) :]
    if not rest:
        return ""
    if rest[0] != ".":
        return None
    tags = rest[1:].lower().split(".")
    language = ""
    # `hi` is Hindi where it comes first, and a remark (for the hard of hearing) behind a language.
    if tags[0] == "hi" or tags[0] not in _REMARKS:
        found = language_code(tags.pop(0))
        if found is None:
            return None
        language = found
    return language if all(tag in _REMARKS for tag in tags) else None
