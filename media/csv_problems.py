"""What can be wrong with a table: rows that are left out, and why a whole file is refused."""

#: Rows that are left out are shown up to this number, and counted beyond.
SHOWN = 100
#: More of them, and more than this part of all rows: it is not read as it was meant.
FEW = 10
PART = 0.1


class Unreadable(Exception):
    """The file is refused. ``code``: stable; ``detail``: for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Problems:
    """Rows that are left out."""

    def __init__(self) -> None:
        self.count = 0
        self.lines: list[tuple[int, str]] = []

    def note(self, line: int, reason: str) -> None:
        """The row that begins at ``line`` is left out."""
        self.count += 1
        if len(self.lines) < SHOWN:
            self.lines.append((line, reason))

    def judge(self, kept: int) -> None:
        """Refuse the file if too many rows are left out.

        Raises:
            Unreadable: more than 10 and more than a tenth of all.
        """
        if self.count > FEW and self.count > PART * (kept + self.count):
            raise Unreadable(
                "ragged-rows",
                f"{self.count:,} of {kept + self.count:,} rows do not fit the header. Perhaps the separator is "
                "none of , ; | and tab, or the first line is no header.",
            )
