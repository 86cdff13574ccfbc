"""Parser of the page of a study."""

from html.parser import HTMLParser

VOID = {"meta", "input", "img", "br"}


class ReportPage(HTMLParser):
    """Tags, attributes, texts of the cells of each table, and the open tags of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.labels, self.counts = [], [], [], [], {}
        self.tables, self.open, self.texts = {}, [], []
        self.table = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[key] for key in ("href", "xlink:href") if key in values]
        self.sources += [values["src"]] if "src" in values else []
        self.labels += [values["aria-label"]] if "aria-label" in values else []
        assert not [key for key in values if key.startswith("on")], values
        if tag == "table":
            self.table = self.tables.setdefault(values.get("aria-label") or values.get("id", ""), [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open and "script" not in self.open:
            self.texts.append(data.strip())
        if self.table and self.table[-1] and self.open and {"td", "th"} & {*self.open[-3:]}:
            self.table[-1][-1] = f"{self.table[-1][-1]} {data.strip()}".strip()
