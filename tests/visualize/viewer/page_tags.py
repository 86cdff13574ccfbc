"""Tags of the pages of viewers."""

from html.parser import HTMLParser

__all__ = ["HOSTILE", "PageTags"]

HOSTILE = "</script><img src=x onerror=alert(1)>\"' \u2028{{ 7 * 7 }}"


class PageTags(HTMLParser):
    """Tags of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]
