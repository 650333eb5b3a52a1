"""Tells file systems that say when a file changes from those that do not."""

import os
import re
from pathlib import Path

_MOUNT_TABLE = Path("/proc/self/mountinfo")
#: Network shares, folders that a virtual machine shares, and all in FUSE but local disks: what another
#: computer changes causes no event here.
_SILENT = re.compile(
    r"nfs4?|cifs|smb[23]?|smbfs|ncpfs|afs|coda|9p|virtiofs|ceph|lustre|gfs2?|ocfs2|glusterfs|vboxsf|vmhgfs|"
    r"prl_fs|drvfs|davfs2?|fuse\.(?!ntfs|exfat|ext|mergerfs).+|fuse"
)


def silent_file_system(folder: Path) -> str | None:
    """The type of a file system at, above or below a folder that tells no changes; None: there is none.

    Where the system does not say what is mounted, none is known.
    """
    try:
        lines = _MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    holding: tuple[Path, str] | None = None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        name = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split(" ")[4])
        point, kind = Path(os.fsdecode(os.fsencode(name))), rest.split(" ")[0]
        if point != folder and point.is_relative_to(folder) and _SILENT.fullmatch(kind):
            return kind
        if folder.is_relative_to(point) and (holding is None or point.is_relative_to(holding[0])):
            holding = point, kind
    return holding[1] if holding is not None and _SILENT.fullmatch(holding[1]) else None
