//! What the page and the API may see: JSON types with `snake_case` keys, apart from the ones we compute with.
