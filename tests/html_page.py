"""Reads what a page of HTML shows."""

from html.parser import HTMLParser

_WITHOUT_END = {'img', 'meta', 'line', 'polyline'}


class HtmlPage(HTMLParser):
    """Text, tables and pictures of a page; refuses tags that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.rows: dict[str, list[str]] = {}
        """Cells behind the first one of each table row but headings, by the first one."""
        self.pictures: list[str] = []
        self._row: list[str] = []
        self._is_heading = False
        self.feed(text)
        assert not self.open, f'not closed: {self.open}'

    @property
    def text(self) -> str:
        return ' '.join(self.texts)

    def handle_startendtag(self, tag, attrs):
        assert tag in _WITHOUT_END

    def handle_starttag(self, tag, attrs):
        if tag == 'img':
            self.pictures.append(dict(attrs)['src'])
        if tag not in _WITHOUT_END:
            self.open.append(tag)
        if tag == 'tr':
            self._row = []
        elif tag in ('td', 'th'):
            self._row.append('')
            self._is_heading = tag == 'th'

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == 'tr' and not self._is_heading:
            self.rows[self._row[0]] = self._row[1:]

    def handle_data(self, data):
        if 'style' in self.open:
            return
        if self.open and self.open[-1] in ('td', 'th'):
            self._row[-1] += data
        if data.strip():
            self.texts.append(data.strip())
