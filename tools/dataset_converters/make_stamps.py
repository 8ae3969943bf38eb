"""Draw stamped documents in the layout and quality of the StaVer archive.

    python tools/dataset_converters/make_stamps.py OUT [--pages N] [--seed S]
        [--page-size W H] [--workers N] [--uncompressed]

Every page is a letter, an invoice or a form on toned, noisy paper, with logos, signatures and
tables as distractors and 0 to 4 rubber stamps: round, oval, rectangular or of text alone, in
blue, red, violet, green, black or gray ink, turned, unevenly inked, over the print and over
the edge of the page. For each page four files are written (see ``staver_layout``): the scan,
the pixels of stamp ink, the filled outlines of the stamps, and a text file with their number.
``staver.py`` converts the folder as it converts the published archive.

The ground truth is what was drawn, not what was recognised: a pixel is ink where the stamp
takes at least ``INK_OPACITY`` of the light, and every ink pixel lies in the region of its
stamp. The regions of two stamps never touch, so each is one connected component.

A page depends on the seed, its number and the page size, and on nothing else: not on the
number of pages, nor on the number of workers. Sizes of print and stamps follow the width of
the page, so small pages look like A4 seen from afar.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from staver_layout import BLANK, INFO, INK, MARKED, PARTS, REGION, SCAN, page_name

# The tool belongs to its checkout, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmsam.errors import ConfigError, DataError, MMSAMError

PAGE_MM = 210.0  # every page is as wide as A4 ...
A4_200_DPI = (1653, 2339)  # ... whose (width, height) is this at 200 dpi
MIN_SIDE = 128  # px; on a smaller page the print is dust

INK_OPACITY = 0.22  # a pixel is stamp ink where at least this share of the light is taken
STAMP_COUNTS = (0.12, 0.40, 0.27, 0.14, 0.07)  # chance of 0, 1, ... 4 stamps
STAMP_SIDE = (0.14, 0.34)  # long side of a stamp's box in page widths
MIN_VISIBLE = 0.4  # least share of a stamp that is on the page
MIN_INKED = 0.06  # least share of a stamp's visible region that is ink
PLACEMENT_TRIES = 25

STAMP_INKS = {  # name: (chance, RGB)
    'blue': (0.32, (46, 66, 152)),
    'red': (0.20, (188, 44, 56)),
    'violet': (0.12, (98, 58, 148)),
    'green': (0.10, (34, 112, 78)),
    'black': (0.16, (38, 36, 40)),
    'gray': (0.10, (104, 104, 110)),
}

FONT_DIR = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'
AILERON = 'Aileron'  # the typeface inside Pillow; the others are files that matplotlib ships
FAMILIES = (  # (regular, bold)
    (AILERON, 'DejaVuSans-Bold'),
    ('DejaVuSans', 'DejaVuSans-Bold'),
    ('DejaVuSerif', 'DejaVuSerif-Bold'),
    ('STIXGeneral', 'STIXGeneralBol'),
    ('STIXGeneral', 'STIXGeneralBol'),
    ('cmr10', 'cmb10'),
    ('cmss10', 'DejaVuSans-Bold'),
    ('cmtt10', 'cmtt10'),
    ('DejaVuSansMono', 'DejaVuSansMono-Bold'),
)
STAMP_FACES = (AILERON, 'DejaVuSans-Bold', 'DejaVuSerif-Bold', 'STIXGeneralBol', 'cmss10', 'cmtt10')

WORDS = (
    'the of and to in for with on we by your our is as at from that this are be order account '
    'delivery payment invoice goods service number date terms within days please enclosed copy '
    'office letter contract amount received department request transfer customer agreement '
    'regarding according following further address company insurance report between material '
    'hereby confirm received until without deduction quantity conditions bank items shipment '
    'reference documents original statement annual period total number subject attention'
).split()
ITEMS = (
    'Paper A4 80 g/m2',
    'Toner cartridge',
    'Maintenance, quarterly',
    'Hosting and support',
    'Freight and packing',
    'Steel brackets M8',
    'Consulting hours',
    'Printed forms, 500 pcs',
    'Travel expenses',
    'Spare part 4711-B',
    'Installation on site',
    'Cable duct 40 mm',
    'Translation, 12 pages',
    'Office chair Modell 7',
    'Laboratory analysis',
    'Rental, one month',
)
COMPANIES = (
    'Nordwind Logistik',
    'Baumann & Sohn',
    'Hansen Elektrotechnik',
    'Rhein-Main Papier',
    'Alder Office Supply',
    'Keller Druck',
    'Meridian Instruments',
    'Stadtwerke Altdorf',
    'Tannhof Apotheke',
    'Lindqvist Marine',
    'Orion Software',
    'Westend Architekten',
)
FORMS_OF_COMPANY = ('GmbH', 'AG', 'Ltd.', 'e.K.', 'KG', 'Inc.', 'A/S')
PEOPLE = ('M. Schneider', 'A. Petersen', 'Dr. K. Winter', 'J. Moreau', 'S. Lindner', 'T. Okafor')
STREETS = ('Hauptstr.', 'Bahnhofstr.', 'Mill Lane', 'Am Markt', 'Ringstr.', 'Harbour Road')
CITIES = ('67663 Kaiserslautern', '8000 Aarhus C', '20095 Hamburg', '50667 Altdorf', '10115 Berlin')
MONTHS = ('JAN', 'FEB', 'MAR', 'APR', 'MAY', 'JUN', 'JUL', 'AUG', 'SEP', 'OCT', 'NOV', 'DEC')
STAMP_WORDS = (
    'RECEIVED',
    'PAID',
    'COPY',
    'APPROVED',
    'ORIGINAL',
    'URGENT',
    'EINGEGANGEN',
    'BEZAHLT',
    'KOPIE',
    'CHECKED',
    'ENTERED',
    'POSTEINGANG',
    'DRAFT',
    'CANCELLED',
)
OFFICES = ('ACCOUNTS DEPT.', 'MAIL ROOM', 'ZENTRALE', 'BUCHHALTUNG', 'REGISTRY', 'FINANCE')
FORM_FIELDS = (
    'Name',
    'First name',
    'Date of birth',
    'Street, number',
    'Post code, town',
    'Telephone',
    'Policy number',
    'Bank',
    'Account no.',
    'Employer',
    'Date of loss',
    'Amount claimed',
    'Remarks',
)


# ---------------------------------------------------------------------------------------------
# Words and fonts
# ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def load_face(face: str, size: int) -> ImageFont.FreeTypeFont:
    """The typeface at an em of ``size`` px."""
    if face == AILERON:
        return ImageFont.load_default(size)
    # The basic layout engine is in every Pillow; the other one is not, and spaces differently.
    return ImageFont.truetype(
        str(FONT_DIR / f'{face}.ttf'), size, layout_engine=ImageFont.Layout.BASIC
    )


def fit_face(face: str, text: str, width: float, height: float) -> ImageFont.FreeTypeFont:
    """The largest font in which ``text`` is at most ``width`` x ``height`` px."""
    font = load_face(face, max(5, round(height)))
    length = font.getlength(text)
    if length <= width:
        return font
    return load_face(face, max(5, int(height * width / length)))


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def company(rng: np.random.Generator) -> str:
    return f'{pick(rng, COMPANIES)} {pick(rng, FORMS_OF_COMPANY)}'


def street(rng: np.random.Generator) -> str:
    return f'{pick(rng, STREETS)} {rng.integers(1, 190)}'


def date(rng: np.random.Generator) -> str:
    day, month, year = rng.integers(1, 29), int(rng.integers(12)), rng.integers(2003, 2012)
    if chance(rng, 0.5):
        return f'{day:02d}.{month + 1:02d}.{year}'
    return f'{day} {MONTHS[month]} {year}'


def money(rng: np.random.Generator) -> str:
    return f'{rng.lognormal(4.5, 1.4):,.2f}'


# ---------------------------------------------------------------------------------------------
# The print: what stood on the page before it was stamped
# ---------------------------------------------------------------------------------------------


class Sheet:
    """The print of one page, drawn in millimetres from the top left corner.

    Small pages are drawn at twice their size and averaged, as a scanner would see them.
    ``array()`` gives the (h, w, 3) uint8 print, white where there is none.
    """

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.size = (width, height)
        self.zoom = 2 if width < 1200 else 1
        self.scale = self.zoom * width / PAGE_MM  # px of the surface a mm
        self.bottom = PAGE_MM * height / width
        self.image = Image.new('RGB', (width * self.zoom, height * self.zoom), 'white')
        self.canvas = ImageDraw.Draw(self.image)
        self.regular, self.bold = FAMILIES[int(rng.integers(len(FAMILIES)))]
        self.em = float(rng.uniform(2.9, 4.3))  # of the body text, 8 to 12 pt
        self.leading = float(rng.uniform(1.2, 1.5))
        self.left = float(rng.uniform(17, 26))
        self.right = PAGE_MM - float(rng.uniform(14, 24))
        gray = int(rng.integers(12, 75))
        self.black = (gray, gray, gray)
        self.accent = tuple(int(v) for v in rng.integers(20, 190, 3))

    @property
    def line_height(self) -> float:
        return self.em * self.leading

    def font(self, em: float, bold: bool) -> ImageFont.FreeTypeFont:
        return load_face(self.bold if bold else self.regular, max(4, round(em * self.scale)))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 1.0,
        bold: bool = False,
        colour: tuple[int, ...] | None = None,
        anchor: str = 'la',
    ) -> None:
        """One line at (x, y), its em ``size`` times that of the body text."""
        self.canvas.text(
            (x * self.scale, y * self.scale),
            text,
            fill=colour or self.black,
            font=self.font(self.em * size, bold),
            anchor=anchor,
        )

    def rule(self, x0: float, y0: float, x1: float, y1: float, thick: float = 0.25) -> None:
        px = [v * self.scale for v in (x0, y0, x1, y1)]
        self.canvas.line(px, fill=self.black, width=max(1, round(thick * self.scale)))

    def box(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        fill: tuple[int, ...] | None = None,
        thick: float = 0.25,
    ) -> None:
        """A rectangle: outlined ``thick`` mm wide, or filled without an outline."""
        px = [v * self.scale for v in (x0, y0, x1, y1)]
        if fill:
            self.canvas.rectangle(px, fill=fill)
        else:
            self.canvas.rectangle(px, outline=self.black, width=max(1, round(thick * self.scale)))

    def paste(self, shape: Image.Image, x: float, y: float, colour: tuple[int, ...]) -> None:
        """Colour the page at (x, y) through an "L" image drawn at 4 x the surface's scale."""
        mask = shape.reduce(4)
        self.image.paste(colour, (round(x * self.scale), round(y * self.scale)), mask)

    def paragraph(self, y: float, lines: int, right: float | None = None) -> float:
        """``lines`` lines of running text from ``y``; returns the y after them."""
        right = right or self.right
        font = self.font(self.em, False)
        space = font.getlength(' ') / self.scale
        justified = self.leading > 1.32  # a habit of the page, not of the paragraph
        for number in range(lines):
            last = number == lines - 1
            width = (right - self.left) * (self.rng.uniform(0.3, 0.9) if last else 1.0)
            row: list[str] = []
            used = 0.0
            while True:
                word = pick(self.rng, WORDS)
                length = font.getlength(word) / self.scale
                if row and used + length > width:
                    break
                row.append(word)
                used += length + space
            if number == 0:
                row[0] = row[0].capitalize()
            if justified and not last and len(row) > 1:
                gap = space + (width - used + space) / (len(row) - 1)
                x = self.left
                for word in row:
                    self.text(x, y, word)
                    x += font.getlength(word) / self.scale + gap
            else:
                self.text(self.left, y, ' '.join(row) + ('.' if last else ''))
            y += self.line_height
        return y

    def array(self) -> np.ndarray:
        """The print as the scanner meets it: slightly askew, at the size of the page."""
        page = np.asarray(self.image)
        h, w = page.shape[:2]
        turn = cv2.getRotationMatrix2D((w / 2, h / 2), float(self.rng.normal(0, 0.35)), 1.0)
        page = cv2.warpAffine(
            page, turn, (w, h), flags=cv2.INTER_LINEAR, borderValue=(255, 255, 255)
        )
        return cv2.resize(page, self.size, interpolation=cv2.INTER_AREA)


def draw_logo(sheet: Sheet, x: float, y: float, height: float) -> float:
    """A crisp company mark at (x, y), ``height`` mm high; returns its right edge."""
    rng = sheet.rng
    side = max(8, round(height * sheet.scale * 4))
    shape = Image.new('L', (side, side))
    pen = ImageDraw.Draw(shape)
    style = int(rng.integers(5))
    end = side - 1
    letter = pick(rng, COMPANIES)[0]
    font = load_face(pick(rng, STAMP_FACES), max(5, int(side * 0.6)))
    if style == 0:  # a disc with a letter cut out
        pen.ellipse((0, 0, end, end), fill=255)
        pen.text((side / 2, side / 2), letter, fill=0, font=font, anchor='mm')
    elif style == 1:  # a ring, the mark most like a stamp
        pen.ellipse((0, 0, end, end), outline=255, width=max(4, side // 12))
        pen.text((side / 2, side / 2), letter, fill=255, font=font, anchor='mm')
    elif style == 2:  # bars
        for k in range(4):
            pen.rectangle((0, side * k // 4, end * (k + 2) // 5, side * k // 4 + side // 7), 255)
    elif style == 3:  # a lozenge
        mid = side // 2
        pen.polygon([(mid, 0), (end, mid), (mid, end), (0, mid)], fill=255)
        pen.polygon([(mid, mid // 2), (mid * 3 // 2, mid), (mid, mid * 3 // 2)], fill=0)
    else:  # a square with a letter
        pen.rounded_rectangle((0, 0, end, end), radius=side // 8, fill=255)
        pen.text((side / 2, side / 2), letter, fill=0, font=font, anchor='mm')
    sheet.paste(shape, x, y, sheet.accent)
    return x + height


def draw_signature(sheet: Sheet, x: float, y: float, width: float, height: float) -> None:
    """A quick pen stroke in a box of ``width`` x ``height`` mm, in blue or black."""
    rng = sheet.rng
    w, h = (round(v * sheet.scale * 4) for v in (width, height))
    t = np.linspace(0, 1, 160)
    across, up = 0.08 + 0.8 * t, np.full_like(t, 0.5)
    for k in range(1, 7):
        swing = 2 * math.pi * (k * rng.uniform(0.9, 1.5) * t + rng.random())
        across += 0.10 / k * rng.uniform(0.2, 1.0) * np.sin(swing * 2)
        up += 0.30 / math.sqrt(k) * rng.uniform(0.3, 1.0) * np.sin(swing * 1.7) * (1.1 - t)
    points = list(zip((across * w).tolist(), (np.clip(up, 0.02, 0.98) * h).tolist(), strict=True))
    shape = Image.new('L', (w, h))
    pen = ImageDraw.Draw(shape)
    thick = max(4, round(rng.uniform(0.25, 0.5) * sheet.scale * 4))
    pen.line(points, fill=235, width=thick, joint='curve')
    if chance(rng, 0.5):
        level = rng.uniform(0.7, 0.95) * h
        pen.line([(0.1 * w, level), (0.95 * w, level - 0.15 * h)], fill=235, width=thick)
    colour = (32, 44, 128) if chance(rng, 0.55) else (34, 34, 40)
    sheet.paste(shape, x, y, colour)


def draw_head(sheet: Sheet) -> float:
    """Logo, sender and addressee; returns the y below them."""
    rng = sheet.rng
    name = company(rng)
    y = float(rng.uniform(9, 15))
    height = float(rng.uniform(11, 20))
    if chance(rng, 0.75):
        at_left = chance(rng, 0.5)
        if at_left:
            edge = draw_logo(sheet, sheet.left, y, height) + 4
            sheet.text(edge, y + height / 2, name, 1.7, True, sheet.accent, 'lm')
        else:
            draw_logo(sheet, sheet.right - height, y, height)
            sheet.text(sheet.right - height - 4, y + height / 2, name, 1.5, True, None, 'rm')
    else:
        sheet.text(PAGE_MM / 2, y + height / 2, name.upper(), 2.0, True, sheet.accent, 'mm')
    y += height + 3
    if chance(rng, 0.5):
        sheet.rule(sheet.left, y, sheet.right, y, 0.3)
    sender_y = y + 3
    for line in (street(rng), pick(rng, CITIES), f'Tel. +49 {rng.integers(10**6, 10**7)}'):
        sheet.text(sheet.right, sender_y, line, 0.85, anchor='ra')
        sender_y += sheet.line_height * 0.85
    y += 10
    sheet.text(sheet.left, y - 4, f'{name}, {pick(rng, CITIES)}', 0.6)
    for line in (company(rng), pick(rng, PEOPLE), street(rng), pick(rng, CITIES)):
        sheet.text(sheet.left, y, line)
        y += sheet.line_height
    return y + 8


def draw_foot(sheet: Sheet) -> None:
    """Small print in columns at the bottom of the page."""
    rng = sheet.rng
    columns = int(rng.integers(2, 5))
    y = sheet.bottom - 18
    if chance(rng, 0.6):
        sheet.rule(sheet.left, y - 2, sheet.right, y - 2)
    for k in range(columns):
        x = sheet.left + k * (sheet.right - sheet.left) / columns
        sheet.text(x, y, pick(rng, COMPANIES), 0.65)
        sheet.text(x, y + sheet.em, f'No. {rng.integers(10**7, 10**8)}', 0.65)
        sheet.text(x, y + 2 * sheet.em, pick(rng, CITIES), 0.65)


def draw_closing(sheet: Sheet, y: float) -> None:
    """Greeting, signature and name from ``y`` on."""
    x = sheet.left if chance(sheet.rng, 0.7) else PAGE_MM / 2 + 10
    sheet.text(x, y, 'Yours sincerely,')
    draw_signature(
        sheet, x, y + 4, float(sheet.rng.uniform(35, 60)), float(sheet.rng.uniform(12, 20))
    )
    sheet.text(x, y + 24, pick(sheet.rng, PEOPLE))


def draw_letter(sheet: Sheet) -> None:
    rng = sheet.rng
    y = draw_head(sheet)
    sheet.text(sheet.right, y, date(rng), anchor='ra')
    y += 2 * sheet.line_height
    subject = ' '.join(pick(rng, WORDS) for _ in range(5)).capitalize()
    sheet.text(sheet.left, y, subject, 1.05, True)
    y += 2 * sheet.line_height
    sheet.text(sheet.left, y, 'Dear Sir or Madam,')
    y += 1.7 * sheet.line_height
    while y < sheet.bottom - 65 and (y < sheet.bottom * 0.45 or chance(rng, 0.75)):
        lines = min(int(rng.integers(2, 8)), int((sheet.bottom - 58 - y) / sheet.line_height))
        y = sheet.paragraph(y, max(1, lines)) + 0.7 * sheet.line_height
    draw_closing(sheet, y + 2)
    draw_foot(sheet)


def draw_table(sheet: Sheet, y: float, rows: int) -> float:
    """Header, ``rows`` items and their sum; returns the y below the table."""
    rng = sheet.rng
    width = sheet.right - sheet.left
    shares = np.cumsum([0, 0.08, 0.46, 0.12, 0.16, 0.18])
    edges = [sheet.left + width * float(s) for s in shares]
    step = sheet.line_height * float(rng.uniform(1.1, 1.7))
    grid, striped = chance(rng, 0.45), chance(rng, 0.35)
    height = step * (rows + 1)
    if chance(rng, 0.5):
        shade = tuple(int(v) for v in 255 - (255 - np.array(sheet.accent)) * 0.25)
        sheet.box(sheet.left, y, sheet.right, y + step, fill=shade)
    for k, title in enumerate(('Pos', 'Description', 'Qty', 'Price', 'EUR')):
        sheet.text(edges[k] + 1.5, y + step / 2, title, 0.9, True, anchor='lm')
    for row in range(1, rows + 1):
        top = y + row * step
        if striped and row % 2 == 0:
            sheet.box(sheet.left, top, sheet.right, top + step, fill=(234, 234, 234))
        cells = (str(row), pick(rng, ITEMS), str(rng.integers(1, 60)), money(rng), money(rng))
        for k, cell in enumerate(cells):
            if k < 2:
                sheet.text(edges[k] + 1.5, top + step / 2, cell, 0.92, anchor='lm')
            else:
                sheet.text(edges[k + 1] - 1.5, top + step / 2, cell, 0.92, anchor='rm')
        if grid:
            sheet.rule(sheet.left, top, sheet.right, top, 0.2)
    sheet.rule(sheet.left, y + step, sheet.right, y + step, 0.4)
    sheet.rule(sheet.left, y + height, sheet.right, y + height, 0.4)
    if grid:
        for edge in edges:
            sheet.rule(edge, y, edge, y + height, 0.2)
        sheet.rule(sheet.left, y, sheet.right, y, 0.2)
    y += height + 2
    for label, bold in (('Net', False), ('VAT 19 %', False), ('Total', True)):
        sheet.text(edges[3] + 1.5, y, label, 1.0, bold)
        sheet.text(edges[5] - 1.5, y, money(rng), 1.0, bold, anchor='ra')
        y += step * 0.9
    return y + 4


def draw_invoice(sheet: Sheet) -> None:
    rng = sheet.rng
    y = draw_head(sheet)
    title = pick(rng, ('INVOICE', 'Invoice', 'RECHNUNG', 'Delivery note', 'Order'))
    sheet.text(sheet.left, y, f'{title} {rng.integers(1000, 99999)}', 1.6, True)
    for k, line in enumerate((f'Date: {date(rng)}', f'Customer: {rng.integers(10**4, 10**5)}')):
        sheet.text(sheet.right, y + k * sheet.line_height, line, anchor='ra')
    y += 3 * sheet.line_height
    if chance(rng, 0.6):
        y = sheet.paragraph(y, int(rng.integers(1, 4))) + 2
    room = int((sheet.bottom - y - 75) / (sheet.line_height * 1.7))
    y = draw_table(sheet, y, int(np.clip(rng.integers(3, 15), 1, max(1, room))))
    if y < sheet.bottom - 62:
        y = sheet.paragraph(y, int(rng.integers(1, 4))) + 3
    if y < sheet.bottom - 48 and chance(rng, 0.7):
        draw_closing(sheet, y)
    draw_foot(sheet)


def draw_form(sheet: Sheet) -> None:
    rng = sheet.rng
    y = float(rng.uniform(12, 20))
    edge = draw_logo(sheet, sheet.left, y, 14)
    sheet.text(
        edge + 5, y + 7, pick(rng, ('APPLICATION', 'Claim form', 'ANTRAG')), 2.2, True, None, 'lm'
    )
    sheet.text(sheet.right, y + 7, f'No. {rng.integers(10**5, 10**6)}', anchor='rm')
    y += 22
    step = sheet.line_height * 2.1
    middle = (sheet.left + sheet.right) / 2
    while y < sheet.bottom - 75:
        if chance(rng, 0.18):
            sheet.box(sheet.left, y, sheet.right, y + step * 0.7, fill=(222, 222, 222))
            heading = ' '.join(pick(rng, WORDS) for _ in range(3)).capitalize()
            sheet.text(sheet.left + 2, y + step * 0.35, heading, 1.0, True, anchor='lm')
            y += step * 0.7
        elif chance(rng, 0.2):
            for k in range(4):
                x = sheet.left + 3 + k * (sheet.right - sheet.left) / 4
                sheet.box(x, y + 1.5, x + sheet.em, y + 1.5 + sheet.em)
                sheet.text(x + sheet.em + 2, y + 1.2, pick(rng, WORDS), 0.9)
                if chance(rng, 0.4):
                    sheet.text(x + sheet.em / 2, y + 1.5 + sheet.em / 2, 'x', 1.1, True, None, 'mm')
            y += step * 0.8
        else:
            edges = (
                (sheet.left, middle, sheet.right) if chance(rng, 0.6) else (sheet.left, sheet.right)
            )
            for x0, x1 in zip(edges, edges[1:], strict=False):
                sheet.box(x0, y, x1, y + step)
                sheet.text(x0 + 1.2, y + 0.6, pick(rng, FORM_FIELDS), 0.62)
                if chance(rng, 0.75):
                    value = pick(rng, (*PEOPLE, *CITIES, *COMPANIES, date(rng), money(rng)))
                    sheet.text(x0 + 3, y + step - 1, value, 1.0, anchor='ls')
            y += step
    y = sheet.paragraph(y + 3, int(rng.integers(2, 5)))
    for x in (sheet.left, middle + 5):
        sheet.rule(x, y + 22, x + 60, y + 22)
        sheet.text(x, y + 23, pick(rng, ('Place, date', 'Signature')), 0.7)
    draw_signature(sheet, middle + 8, y + 4, 50, 18)
    draw_foot(sheet)


def draw_print(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """The print of a page as an (h, w, 3) uint8 array, white where there is none."""
    sheet = Sheet(width, height, rng)
    kinds: tuple[Callable[[Sheet], None], ...] = (
        draw_letter,
        draw_invoice,
        draw_invoice,
        draw_form,
    )
    kinds[int(rng.integers(len(kinds)))](sheet)
    return sheet.array()


# ---------------------------------------------------------------------------------------------
# Stamps
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Die:
    """An unrotated rubber stamp: what it prints and where it ends, both (h, w) float32 0..1."""

    relief: np.ndarray
    outline: np.ndarray


def ring_of_text(
    relief: np.ndarray, text: str, face: str, outer: float, inner: float, top: bool
) -> None:
    """Print ``text`` into ``relief`` between two ellipses, given as shares of its half sides.

    The text is drawn straight and bent by a polar map: round the top, or, upright for the
    reader too, round the bottom.
    """
    h, w = relief.shape
    rise = max(8, round((outer - inner) * min(h, w) / 2))
    font = load_face(face, max(6, round(rise * 0.82)))
    length = max(1, round(font.getlength(text)))
    strip = Image.new('L', (length + 4, rise))
    ImageDraw.Draw(strip).text((2, rise / 2), text, fill=255, font=font, anchor='lm')
    middle = (outer + inner) / 2 * math.sqrt(h * w) / 2
    span = min(length / middle, 1.05 * math.pi)  # too long a text is squeezed
    y, x = np.mgrid[:h, :w].astype(np.float32)
    x = (x - (w - 1) / 2) / (w / 2)
    y = (y - (h - 1) / 2) / (h / 2)
    radius = np.hypot(x, y)
    if top:
        angle = np.arctan2(x, -y)
        down = (outer - radius) / (outer - inner)
    else:
        angle = np.arctan2(x, y)
        down = (radius - inner) / (outer - inner)
    bent = cv2.remap(
        np.asarray(strip),
        ((angle / span + 0.5) * (length + 3)).astype(np.float32),
        (down * (rise - 1)).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    np.maximum(relief, bent.astype(np.float32) / 255, out=relief)


def stamp_lines(rng: np.random.Generator, lines: int) -> list[str]:
    """Texts for ``lines`` lines of a stamp, one of them a date more often than not."""
    pool = [pick(rng, STAMP_WORDS), date(rng), pick(rng, OFFICES), company(rng), street(rng)]
    if chance(rng, 0.5):
        pool[2:] = [company(rng), street(rng), pick(rng, CITIES)]
    return pool[:lines]


def text_lines(
    pen: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    lines: list[str],
    face: str,
    weights: np.ndarray,
) -> None:
    """Centre ``lines`` in the ``box`` (x0, y0, x1, y1), heights in proportion to ``weights``."""
    x0, y0, x1, y1 = box
    heights = (y1 - y0) * weights / weights.sum()
    y = y0
    for line, height in zip(lines, heights.tolist(), strict=True):
        font = fit_face(face, line, x1 - x0, height * 0.92)
        pen.text(((x0 + x1) / 2, y + height / 2), line, fill=255, font=font, anchor='mm')
        y += height


def round_die(rng: np.random.Generator, w: int, h: int) -> Die:
    """A ring of text round a date, a word or an emblem; an oval one where ``w`` > ``h``."""
    image = Image.new('L', (w, h))
    pen = ImageDraw.Draw(image)
    line = max(2, round(min(w, h) * rng.uniform(0.016, 0.032)))
    pen.ellipse((0, 0, w - 1, h - 1), outline=255, width=line)
    inner = float(rng.uniform(0.56, 0.68))
    if chance(rng, 0.3):  # a second line just inside the first
        gap = 2 * line
        pen.ellipse((gap, gap, w - 1 - gap, h - 1 - gap), outline=255, width=max(1, line // 2))
    if chance(rng, 0.75):
        dx, dy = w / 2 * (1 - inner), h / 2 * (1 - inner)
        pen.ellipse((dx, dy, w - 1 - dx, h - 1 - dy), outline=255, width=max(1, line * 2 // 3))
    face = pick(rng, STAMP_FACES)
    half_w, half_h = inner * w / 2, inner * h / 2
    style = rng.random()
    if style < 0.6:
        lines = stamp_lines(rng, int(rng.integers(1, 4)))
        box = (
            w / 2 - half_w * 0.80,
            h / 2 - half_h * 0.5,
            w / 2 + half_w * 0.80,
            h / 2 + half_h * 0.5,
        )
        text_lines(pen, box, lines, face, rng.uniform(0.7, 1.3, len(lines)))
    elif style < 0.85:  # a star with n points as a coat of arms
        n = int(rng.integers(4, 9))
        turns = np.arange(2 * n) * math.pi / n - math.pi / 2
        reach = np.where(np.arange(2 * n) % 2, rng.uniform(0.35, 0.6), 0.85)
        xs = w / 2 + half_w * reach * np.cos(turns)
        ys = h / 2 + half_h * reach * np.sin(turns)
        pen.polygon(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=255)
        r = 0.28 * min(half_w, half_h)
        pen.ellipse((w / 2 - r, h / 2 - r, w / 2 + r, h / 2 + r), fill=0)
    else:  # a bar with the date across the middle
        font = fit_face(face, date(rng), half_w * 1.7, half_h * 0.42)
        pen.text((w / 2, h / 2), date(rng), fill=255, font=font, anchor='mm')
        for y in (h / 2 - half_h * 0.34, h / 2 + half_h * 0.34):
            pen.line((w / 2 - half_w * 0.93, y, w / 2 + half_w * 0.93, y), fill=255, width=line)
    relief = np.asarray(image).astype(np.float32) / 255
    outer = 0.95 - 2.5 * line / min(w, h)
    ring_of_text(relief, company(rng).upper(), face, outer, inner + 0.05, top=True)
    if chance(rng, 0.8):
        bottom = pick(rng, (*OFFICES, *(c.upper() for c in CITIES)))
        ring_of_text(relief, bottom, face, outer, inner + 0.05, top=False)
    outline = Image.new('L', (w, h))
    ImageDraw.Draw(outline).ellipse((0, 0, w - 1, h - 1), fill=255)
    return Die(relief, np.asarray(outline).astype(np.float32) / 255)


def framed_die(rng: np.random.Generator, w: int, h: int) -> Die:
    """A frame, square or rounded, single or double, round lines of text or fields to fill in."""
    image = Image.new('L', (w, h))
    pen = ImageDraw.Draw(image)
    line = max(2, round(h * rng.uniform(0.025, 0.06)))
    radius = round(h * rng.uniform(0.08, 0.3)) if chance(rng, 0.45) else 0
    pen.rounded_rectangle((0, 0, w - 1, h - 1), radius=radius, outline=255, width=line)
    inset = 2.2 * line
    if chance(rng, 0.35):
        pen.rounded_rectangle(
            (inset, inset, w - 1 - inset, h - 1 - inset),
            radius=max(0, round(radius - inset)),
            outline=255,
            width=max(1, line // 2),
        )
        inset += line
    face = pick(rng, STAMP_FACES)
    inset += line
    room = (inset, inset, w - 1 - inset, h - 1 - inset)
    if h > 0.45 * w and chance(rng, 0.55):  # a mail room's stamp: word, date, boxes for initials
        split = inset + (h - 2 * inset) * rng.uniform(0.5, 0.65)
        lines = stamp_lines(rng, 2)
        text_lines(pen, (inset, inset, w - 1 - inset, split), lines, face, np.array([1.0, 0.8]))
        columns = int(rng.integers(2, 5))
        pen.line((0, split, w - 1, split), fill=255, width=max(1, line // 2))
        small = load_face(face, max(5, round((h - split) * 0.3)))
        for k in range(columns):
            x = w * k / columns
            if k:
                pen.line((x, split, x, h - 1), fill=255, width=max(1, line // 2))
            label = pick(rng, ('No.', 'To', 'Ref', 'Acct', 'Sig'))
            pen.text((x + 2 * line, split + line), label, fill=255, font=small, anchor='la')
    else:
        count = 1 if h < 0.32 * w else int(rng.integers(2, 5))
        lines = stamp_lines(rng, count)
        text_lines(pen, room, lines, face, rng.uniform(0.7, 1.4, count))
    outline = Image.new('L', (w, h))
    ImageDraw.Draw(outline).rounded_rectangle((0, 0, w - 1, h - 1), radius=radius, fill=255)
    return Die(
        np.asarray(image).astype(np.float32) / 255, np.asarray(outline).astype(np.float32) / 255
    )


def text_die(rng: np.random.Generator, w: int, h: int) -> Die:
    """Lines of text with nothing round them; the outline is their convex hull."""
    image = Image.new('L', (w, h))
    pen = ImageDraw.Draw(image)
    face = pick(rng, STAMP_FACES)
    if h < 0.3 * w:
        lines = [pick(rng, STAMP_WORDS) if chance(rng, 0.7) else date(rng)]
    else:
        lines = [company(rng), street(rng), pick(rng, CITIES), date(rng)]
        lines = lines[: int(rng.integers(2, 5))]
        if chance(rng, 0.5):
            lines[0] = pick(rng, STAMP_WORDS)
    text_lines(pen, (2, 2, w - 3, h - 3), lines, face, rng.uniform(0.6, 1.4, len(lines)))
    relief = np.asarray(image)
    ys, xs = np.nonzero(relief > 20)
    hull = cv2.convexHull(np.stack([xs, ys], axis=1).astype(np.int32))
    outline = np.zeros((h, w), np.uint8)
    cv2.fillConvexPoly(outline, hull, 255)
    # The outline keeps a margin, or the soft edges of the letters would lie outside of it.
    margin = max(3, round(0.03 * w)) | 1
    outline = cv2.dilate(outline, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin, margin)))
    return Die(relief.astype(np.float32) / 255, outline.astype(np.float32) / 255)


# name: (chance, least and greatest height per width, how it is drawn)
STAMP_SHAPES: dict[str, tuple[float, float, float, Callable[..., Die]]] = {
    'round': (0.32, 1.0, 1.0, round_die),
    'oval': (0.16, 0.55, 0.8, round_die),
    'rectangular': (0.32, 0.25, 0.7, framed_die),
    'textual': (0.20, 0.2, 0.6, text_die),
}


def draw_angle(rng: np.random.Generator) -> float:
    """How far a stamp is turned, in degrees: a little, well off level, or anyhow."""
    kind = rng.random()
    if kind < 0.35:
        return float(rng.normal(0, 5))
    if kind < 0.7:
        return float(rng.choice((-1, 1)) * rng.uniform(8, 35))
    return float(rng.uniform(-90, 90))


def smooth_noise(rng: np.random.Generator, h: int, w: int, cell: float) -> np.ndarray:
    """(h, w) float32 noise of mean 0 and deviation of about 1 with bumps ``cell`` px wide."""
    rows, columns = max(2, math.ceil(h / cell) + 1), max(2, math.ceil(w / cell) + 1)
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)


def wear(rng: np.random.Generator, h: int, w: int, mm: float) -> np.ndarray:
    """(h, w) float32 share of the light that solid rubber takes, uneven over the stamp.

    ``mm`` is the number of pixels a millimetre. The pad was more or less wet, the hand pressed
    unevenly, at times one side hardly at all, and the paper is rough.
    """
    wet = rng.uniform(0.42, 0.6) if chance(rng, 0.2) else rng.uniform(0.6, 0.95)
    field = np.full((h, w), wet, np.float32)
    field *= 1 + rng.uniform(0.05, 0.28) * smooth_noise(rng, h, w, max(h, w) / 2.5)
    if chance(rng, 0.35):
        angle = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[:h, :w].astype(np.float32)
        along = (x / w - 0.5) * math.cos(angle) + (y / h - 0.5) * math.sin(angle) + 0.5
        ramp = (along - rng.uniform(-0.1, 0.3)) / rng.uniform(0.25, 0.6)
        field *= np.clip(ramp, rng.uniform(0.0, 0.35), 1)
    grain = smooth_noise(rng, h, w, max(1.0, 0.35 * mm)) + rng.standard_normal(
        (h, w), dtype=np.float32
    )
    field *= 1 + rng.uniform(0.05, 0.22) * grain
    return np.clip(field, 0, 0.97)


@dataclass(frozen=True)
class Impression:
    """One stamp on the page, cut to the part that is visible.

    ``x``, ``y`` are the corner of the arrays on the page; ``opacity`` is (h, w) float32 0..1,
    ``ink`` and ``region`` are (h, w) bool, the ink within the region.
    """

    shape: str
    colour: str
    x: int
    y: int
    opacity: np.ndarray
    ink: np.ndarray
    region: np.ndarray

    @property
    def window(self) -> tuple[slice, slice]:
        """Where the stamp is, to index an (h, w, ...) array of the page."""
        h, w = self.region.shape
        return slice(self.y, self.y + h), slice(self.x, self.x + w)


def turn(layer: np.ndarray, angle: float, scale: float, w: int, h: int) -> np.ndarray:
    """``layer`` turned by ``angle`` degrees and ``scale``d about its centre, (h, w) float32."""
    rows, columns = layer.shape
    matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle, 2 * scale)
    matrix[0, 2] += w - 0.5 - (columns - 1) / 2
    matrix[1, 2] += h - 0.5 - (rows - 1) / 2
    double = cv2.warpAffine(layer, matrix, (2 * w, 2 * h), flags=cv2.INTER_LINEAR)
    return cv2.resize(double, (w, h), interpolation=cv2.INTER_AREA)


def press_stamp(rng: np.random.Generator, page_w: int, page_h: int) -> Impression | None:
    """One stamp somewhere on an empty page, or None where too little of it can be seen."""
    names = list(STAMP_SHAPES)
    shape = names[int(rng.choice(len(names), p=[STAMP_SHAPES[n][0] for n in names]))]
    _, low, high, draw_die = STAMP_SHAPES[shape]
    colours = list(STAMP_INKS)
    colour = colours[int(rng.choice(len(colours), p=[STAMP_INKS[c][0] for c in colours]))]

    # The side is drawn for the box of the turned stamp; the die follows from it.
    angle = draw_angle(rng)
    aspect = float(rng.uniform(low, high))
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    if draw_die is round_die:
        box = (math.hypot(cos, aspect * sin), math.hypot(sin, aspect * cos))
    else:
        box = (cos + aspect * sin, sin + aspect * cos)
    width = float(rng.uniform(*STAMP_SIDE)) * page_w / max(box)
    die_w = max(180, round(1.6 * width))
    die = draw_die(rng, die_w, round(die_w * aspect))

    w, h = math.ceil(width * box[0]) + 4, math.ceil(width * box[1]) + 4
    scale = width / die_w
    region = turn(die.outline, angle, scale, w, h) >= 0.5
    opacity = turn(die.relief, angle, scale, w, h) * wear(rng, h, w, page_w / PAGE_MM)
    opacity[~region] = 0

    # Anywhere on the page, at times over its edge.
    over = 0.55 if chance(rng, 0.2) else -0.02
    x = round(rng.uniform(-over * w, max(page_w - (1 - over) * w, 1 - over * w)))
    y = round(rng.uniform(-over * h, max(page_h - (1 - over) * h, 1 - over * h)))
    seen = (
        slice(max(0, -y), max(0, min(h, page_h - y))),
        slice(max(0, -x), max(0, min(w, page_w - x))),
    )
    if region[seen].sum() < MIN_VISIBLE * region.sum():
        return None
    opacity, visible = opacity[seen], region[seen]
    ink = opacity >= INK_OPACITY
    if ink.sum() < MIN_INKED * visible.sum():
        return None
    return Impression(shape, colour, max(0, x), max(0, y), opacity, ink, visible)


def press_stamps(rng: np.random.Generator, page_w: int, page_h: int) -> list[Impression]:
    """0 to 4 stamps whose regions keep a distance from each other."""
    wanted = int(rng.choice(len(STAMP_COUNTS), p=STAMP_COUNTS))
    gap = max(3, round(0.01 * page_w))
    reach = np.ones((2 * gap + 1, 2 * gap + 1), np.uint8)
    taken = np.zeros((page_h, page_w), np.uint8)
    stamps: list[Impression] = []
    for _ in range(wanted):
        for _ in range(PLACEMENT_TRIES):
            stamp = press_stamp(rng, page_w, page_h)
            if stamp is None or taken[stamp.window][stamp.region].any():
                continue
            stamps.append(stamp)
            region = np.zeros_like(taken)
            region[stamp.window] = stamp.region
            taken |= cv2.dilate(region, reach)
            break
    return stamps


# ---------------------------------------------------------------------------------------------
# The scan
# ---------------------------------------------------------------------------------------------


def paper(rng: np.random.Generator, page_w: int, page_h: int) -> np.ndarray:
    """The light an empty page returns, (h, w, 3) float32, 255 for white."""
    tone = rng.uniform(232, 254) + rng.normal(0, 1.5, 3)
    if chance(rng, 0.25):  # yellowed or recycled paper
        tone -= np.array([0, 3, 10]) * rng.uniform(0.5, 1.8)
    shade = 1 + rng.uniform(0.002, 0.012) * smooth_noise(rng, page_h, page_w, page_w / 2)
    mm = page_w / PAGE_MM
    if chance(rng, 0.35):  # the lid does not close: dark towards one edge
        depth = np.arange(page_w, dtype=np.float32) / (mm * rng.uniform(2, 6))
        dark = 1 - rng.uniform(0.1, 0.35) * np.exp(-depth)
        shade *= dark[::-1] if chance(rng, 0.5) else dark
    if chance(rng, 0.4):  # folded in three for the envelope
        for third in (1, 2):
            y = page_h * third / 3 + rng.normal(0, 2) * mm
            distance = (np.arange(page_h, dtype=np.float32) - y) / (0.5 * mm + 0.5)
            shade *= (1 - rng.uniform(0.01, 0.05) * np.exp(-(distance**2)))[:, None]
    page = shade[:, :, None] * tone.astype(np.float32)
    if chance(rng, 0.25):  # punched for filing
        for offset in (-40, 40):
            centre = (round(rng.uniform(9, 13) * mm), round(page_h / 2 + offset * mm))
            cv2.circle(page, centre, round(2.8 * mm), (120.0, 120.0, 122.0), -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 25))):  # specks of dust
        centre = (int(rng.integers(page_w)), int(rng.integers(page_h)))
        level = float(rng.uniform(90, 190))
        cv2.circle(page, centre, max(0, round(0.2 * mm)), (level, level, level), -1, cv2.LINE_AA)
    return page


def draw_page(
    seed: int, number: int, page_w: int, page_h: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Page ``number`` of ``seed``: scan, ink, region and text.

    Returns:
        The scan (h, w, 3) uint8 RGB, ink and region (h, w) uint8 with ``MARKED`` where there is
        some and ``BLANK`` elsewhere, and the text of the info file.
    """
    rng = np.random.default_rng((seed, number))
    printed = draw_print(page_w, page_h, rng)
    page = paper(rng, page_w, page_h) * (printed.astype(np.float32) / 255)
    ink = np.full((page_h, page_w), BLANK, np.uint8)
    region = np.full((page_h, page_w), BLANK, np.uint8)
    stamps = press_stamps(rng, page_w, page_h)
    over_text = False
    for stamp in stamps:
        _, rgb = STAMP_INKS[stamp.colour]
        taken = 1 - np.clip(np.array(rgb) + rng.normal(0, 10, 3), 0, 255).astype(np.float32) / 255
        page[stamp.window] *= 1 - stamp.opacity[:, :, None] * taken
        ink[stamp.window][stamp.ink] = MARKED
        region[stamp.window][stamp.region] = MARKED
        over_text |= bool((printed[stamp.window][stamp.ink] < 128).any())

    # Optics, sensor noise (mostly alike in the three channels) and the gain of the scanner.
    blur = float(rng.uniform(0.35, 0.75))
    page = cv2.GaussianBlur(page, (0, 0), blur)
    page += rng.uniform(0.8, 3.2) * rng.standard_normal((page_h, page_w, 1), dtype=np.float32)
    page += rng.uniform(0.3, 1.2) * rng.standard_normal(page.shape, dtype=np.float32)
    page = page * rng.uniform(0.97, 1.05) + rng.uniform(0, 12)
    scan = np.clip(page + 0.5, 0, 255).astype(np.uint8)

    info = ''.join(
        f'{key}: {value}\n'
        for key, value in (
            ('Number of stamps', len(stamps)),
            ('Shapes', ', '.join(s.shape for s in stamps) or 'none'),
            ('Inks', ', '.join(s.colour for s in stamps) or 'none'),
            ('Overlap with printed text', 'yes' if over_text else 'no'),
        )
    )
    return scan, ink, region, info


def write_page(
    out: Path, seed: int, page_w: int, page_h: int, uncompressed: bool, number: int
) -> None:
    """Draw page ``number`` and write its four files under ``out``."""
    cv2.setNumThreads(1)  # the pages are what runs side by side
    scan, ink, region, info = draw_page(seed, number, page_w, page_h)
    name = page_name(number)
    options: list[int] = []
    if uncompressed:
        options = [cv2.IMWRITE_PNG_COMPRESSION, 0]
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    for part, image in ((SCAN, scan[:, :, ::-1]), (INK, ink), (REGION, region)):
        path = part.path(out, name)
        if not cv2.imwrite(str(path), image, options if part is SCAN else []):
            raise DataError(f'cannot write {path}.')
    INFO.path(out, name).write_text(info, encoding='utf-8')


def make_stamps(
    out: Path,
    pages: int,
    seed: int,
    page_size: tuple[int, int],
    workers: int,
    uncompressed: bool = False,
) -> None:
    """Write ``pages`` pages of ``page_size`` (w, h) px under ``out``, with ``workers`` processes.

    ``uncompressed`` scans take more than twice the disk and a third of the time to read.

    Raises:
        ConfigError: a number is out of range.
        DataError: ``out`` is a file, or a folder with something in it.
    """
    for value, least, what in (
        (pages, 1, '--pages'),
        (seed, 0, '--seed'),
        (min(page_size), MIN_SIDE, 'each side of --page-size'),
        (workers, 1, '--workers'),
    ):
        if value < least:
            raise ConfigError(f'{what} must be at least {least}, got {value}.')
    # Old pages among the new ones would break the promise that the seed decides them all.
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f'the output folder must be new or empty, but {out} is not.')
    try:
        for part in PARTS:
            part.path(out, page_name(1)).parent.mkdir(parents=True)
    except OSError as error:
        raise DataError(f'cannot make the output folder {out}: {error.strerror}.') from error
    write = partial(write_page, out, seed, *page_size, uncompressed)
    numbers = range(1, pages + 1)
    if workers == 1:
        for number in numbers:
            write(number)
    else:
        with multiprocessing.Pool(min(workers, pages)) as pool:
            for _ in pool.imap_unordered(write, numbers):
                pass


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write, new or empty')
    parser.add_argument('--pages', type=int, default=400, help='number of pages (400)')
    parser.add_argument('--seed', type=int, default=0, help='what decides the pages (0)')
    parser.add_argument(
        '--page-size',
        type=int,
        nargs=2,
        default=A4_200_DPI,
        metavar=('W', 'H'),
        help='width and height of a page in px (1653 2339, A4 at 200 dpi)',
    )
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count() or 1, help='processes (one a CPU core)'
    )
    parser.add_argument(
        '--uncompressed',
        action='store_true',
        help='scans of more than twice the size that are read in a third of the time',
    )
    args = parser.parse_args(argv)
    size = tuple(args.page_size)
    try:
        make_stamps(args.out, args.pages, args.seed, size, args.workers, args.uncompressed)
    except MMSAMError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    print(f'{args.pages} pages in {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
