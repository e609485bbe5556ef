"""ISO 20022 as XML: the only place that knows lxml.

`writer` builds messages once, in the schema's order, the same octets for the same values; `reader` takes nothing that is not valid and
checks what the schemas do not; `parser` keeps hostile XML out; `schemas` holds the official schemas.
"""
