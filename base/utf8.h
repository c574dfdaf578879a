/* UTF-8 validity. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Well-formed as RFC 3629 says: no overlong forms, no surrogates, nothing above U+10FFFF. With
 * refuse_nul a NUL byte is refused as well. */
bool utf8_valid(const void *data, size_t len, bool refuse_nul);
/* Length of the longest valid prefix. */
size_t utf8_valid_prefix(const void *data, size_t len, bool refuse_nul);
/* Where the first control character of ASCII stands (below 0x20, or 0x7f); len: there is none. */
size_t utf8_find_control(const void *data, size_t len);
/* Length of the longest prefix of valid text that has at most max bytes and cuts no character. */
size_t utf8_cut(const char *text, size_t len, size_t max);
