"""Files beside photographs that are none: sidecars, videos, and what systems and drives leave there.

Judged by their names alone, so that a video in a bucket is never asked for. A file with another name is
taken for a photograph, and fails with a reason if it is none.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from maximir.files import is_system_folder

KEPT = ".original"  # of photographs that were restored in place
SYSTEM_FILES = {  # in lower case; hidden files are skipped, too
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "folder.ini",
    "picasa.ini",
    "icon\r",
    "zbthumbnail.info",
    "autorun.inf",
}
NEIGHBOURS = {
    *(".xmp", ".dop", ".pp3", ".arp", ".aae", ".thm", ".cos", ".cop", ".cot", ".cof", ".comask", ".on1"),
    *(".nksc", ".nka", ".rws", ".dxo", ".pto", ".gpx", ".kml", ".ithmb", ".lrcat", ".lrprev", ".lrtemplate"),
    *(".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp"),
    *(".3g2", ".flv", ".ogv", ".vob", ".mxf", ".mod", ".insv", ".lrv", ".360", ".braw", ".crm", ".srt"),
    *(".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus", ".wma", ".aiff", ".amr"),
    *(".txt", ".md", ".pdf", ".rtf", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods", ".csv", ".tsv"),
    *(".ppt", ".pptx", ".json", ".jsonl", ".xml", ".html", ".htm", ".css", ".js", ".url", ".webloc"),
    *(".lnk", ".log", ".ini", ".db", ".db-journal", ".sqlite", ".plist", ".ctg"),
    *(".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".iso", ".dmg", ".exe"),
    *(".md5", ".sha1", ".sha256", ".sfv", ".par2", ".sh", ".bat", ".py", ".torrent"),
    *(".crdownload", ".part", ".partial", ".download", ".tmp", ".filepart"),
    KEPT,
}
CLOUDS = {  # suffixes of the small files that stand for those that are not on this disk
    ".icloud": "iCloud",
    ".nextcloud": "Nextcloud",
    ".owncloud": "ownCloud",
    ".cloud": "odrive",
    ".cloudf": "odrive",
}
# Windows: offline, recall on open, recall on data access; macOS: dataless. OneDrive, Dropbox and iCloud.
ELSEWHERE, DATALESS = 0x1000 | 0x40000 | 0x400000, 0x40000000
MOST_NAMES = 20


@dataclass
class LeftAlone:
    """Files beside the photographs.

    Attributes:
        kinds: suffix -> number of files that are no images.
        in_clouds: cloud -> names of photographs that are not on this disk.
        report: the run's own, which does not count.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    in_clouds: dict[str, list[str]] = field(default_factory=dict)
    report: Path | None = None

    def is_report(self, path: Path | None) -> bool:
        if path is None or self.report is None or path.name != self.report.name:
            return False
        return os.path.realpath(path) == os.path.realpath(self.report)

    def take(self, path: str) -> bool:
        """Count the file at `path`, with "/", and return True, if its name is that of no photograph."""
        *folders, name = path.split("/")
        lower = name.lower()
        suffix = PurePosixPath(lower).suffix
        if any(map(is_system_folder, folders)) or lower in SYSTEM_FILES:
            return True
        if suffix in CLOUDS:
            self.add_in_cloud(CLOUDS[suffix], name[: -len(suffix)].removeprefix("."))
            return True
        if lower.startswith("."):
            return True
        if suffix in NEIGHBOURS:
            self.kinds[suffix] += 1
            return True
        return False

    def add_in_cloud(self, cloud: str, name: str) -> None:
        if PurePosixPath(name).suffix.lower() not in NEIGHBOURS:
            self.in_clouds.setdefault(cloud, []).append(name)

    def lines(self) -> list[str]:
        """Describe the files: a line for all that are no images, and one for each cloud."""
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.kinds.items()))
        found = [f"skipped, not images: {kinds}"] if kinds else []
        for cloud, names in self.in_clouds.items():
            noun = "photograph is" if len(names) == 1 else "photographs are"
            listed = ", ".join(names[:MOST_NAMES])
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            found.append(f"{len(names)} {noun} only in {cloud}, not on this disk: {listed}{more}")
        return found


def is_in_cloud(facts: os.stat_result) -> bool:
    """Return True for a file that the system would have to download to read it."""
    attributes, flags = getattr(facts, "st_file_attributes", 0), getattr(facts, "st_flags", 0)
    return stat.S_ISREG(facts.st_mode) and bool(attributes & ELSEWHERE or flags & DATALESS)
