/* Where the members of a JSON object are, and whether it is JSON at all, as fast as memory is read.
 *
 * Knows: RFC 8259 and RFC 3629, strictly. Does not know: what members mean. Beside it stands msgspec: whatever is refused or left
 * open here (None) is looked at again by it, so that a doubt costs time and never an answer. Compiled with the modules that
 * every call passes through (docs/decisions/014); without it msgspec does all the work.
 *
 * Every read is bounded by `end`. Nothing is written, and nothing is kept after the call.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { MAX_DEPTH = 128, MAX_MEMBERS = 64, MAX_NAMES = 16 };

typedef const uint8_t *At; /* a place in the text; NULL: it is no JSON, or none that is judged here */

static int is_space(uint8_t c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
static int is_digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }

static At skip_space(At at, At end) {
    while (at < end && is_space(*at)) at++;
    return at;
}

/* Escapes of one letter. */
static const uint8_t LETTERS[256] = {
    ['"'] = 1, ['\\'] = 1, ['/'] = 1, ['b'] = 1, ['f'] = 1, ['n'] = 1, ['r'] = 1, ['t'] = 1,
};

#if defined(__SSE2__)
enum { BLOCK = 64 };

/* Which bytes of a block are quotes, control characters or beyond ASCII; and which are backslashes. */
static uint64_t stops_of(At at, uint64_t *backslashes) {
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), last_control = _mm_set1_epi8(0x1f);
    uint64_t stops = 0, escapes = 0;
    for (int i = 0; i < BLOCK; i += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(at + i));
        const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, last_control), bytes);
        const __m128i found = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, quote), control), bytes);
        stops |= (uint64_t)(unsigned)_mm_movemask_epi8(found) << i;
        escapes |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, backslash)) << i;
    }
    *backslashes = escapes;
    return stops;
}

/* Past all that is text or an escape of one letter, block by block: one guess of the processor for each block, not for each escape. */
static At skip_blocks(At at, At end) {
    while (end - at > BLOCK) { /* one byte more than the block: the letter of an escape that is its last byte */
        uint64_t backslashes, stops = stops_of(at, &backslashes);
        int past = BLOCK;
        while (backslashes) {
            const int place = __builtin_ctzll(backslashes);
            if (stops & (((uint64_t)1 << place) - 1)) break; /* the string may end before it */
            if (!LETTERS[at[place + 1]]) return at + place;
            if (place == BLOCK - 1) {
                past = BLOCK + 1;
                break;
            }
            const uint64_t pair = (uint64_t)3 << place;
            backslashes &= ~pair;
            stops &= ~pair;
        }
        if (stops) return at + __builtin_ctzll(stops);
        at += past;
    }
    return at;
}
#else
static At skip_blocks(At at, At end) { (void)end; return at; }
#endif

/* To the next byte of a string that is not simply text. */
static At skip_text(At at, At end) {
    at = skip_blocks(at, end);
    while (at < end && *at != '"' && *at != '\\' && *at >= 0x20 && *at < 0x80) at++;
    return at;
}

/* Past one character beyond ASCII; overlong forms, surrogates and what lies beyond U+10FFFF are none (RFC 3629, section 4). */
static At skip_beyond_ascii(At at, At end) {
    const uint8_t first = *at;
    const Py_ssize_t left = end - at;
    uint8_t least = 0x80, most = 0xbf;
    int more;
    if (first >= 0xc2 && first <= 0xdf) more = 1;
    else if (first >= 0xe0 && first <= 0xef) {
        more = 2;
        if (first == 0xe0) least = 0xa0;
        if (first == 0xed) most = 0x9f;
    } else if (first >= 0xf0 && first <= 0xf4) {
        more = 3;
        if (first == 0xf0) least = 0x90;
        if (first == 0xf4) most = 0x8f;
    } else return NULL;
    if (left <= more || at[1] < least || at[1] > most) return NULL;
    for (int i = 2; i <= more; i++)
        if ((at[i] & 0xc0) != 0x80) return NULL;
    return at + more + 1;
}

static int hex_of(uint8_t c) {
    if (is_digit(c)) return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The number behind `\u`; -1 when there is none. */
static int unit_at(At at, At end) {
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u') return -1;
    int unit = 0;
    for (int i = 2; i < 6; i++) {
        const int digit = hex_of(at[i]);
        if (digit < 0) return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* Past an escape. Halves of a pair that stand alone are left to others, who know how to mend them. */
static At skip_escape(At at, At end) {
    if (end - at < 2) return NULL;
    if (LETTERS[at[1]]) return at + 2;
    switch (at[1]) {
    case 'u': {
        const int unit = unit_at(at, end);
        if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff)) return NULL;
        if (unit < 0xd800 || unit > 0xdbff) return at + 6;
        const int second = unit_at(at + 6, end);
        return second >= 0xdc00 && second <= 0xdfff ? at + 12 : NULL;
    }
    default:
        return NULL;
    }
}

/* Past a string, from the byte after its first quote. */
static At skip_string(At at, At end) {
    for (;;) {
        at = skip_text(at, end);
        if (at >= end) return NULL;
        if (*at == '"') return at + 1;
        at = *at == '\\' ? skip_escape(at, end) : *at >= 0x80 ? skip_beyond_ascii(at, end) : NULL;
        if (at == NULL) return NULL;
    }
}

static At skip_digits(At at, At end) {
    if (at >= end || !is_digit(*at)) return NULL;
    while (at < end && is_digit(*at)) at++;
    return at;
}

static At skip_number(At at, At end) {
    if (*at == '-') at++;
    if (at >= end) return NULL;
    if (*at == '0') at++;
    else if ((at = skip_digits(at, end)) == NULL) return NULL;
    if (at < end && *at == '.' && (at = skip_digits(at + 1, end)) == NULL) return NULL;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        at = skip_digits(at, end);
    }
    return at;
}

static At skip_word(At at, At end, const char *word, Py_ssize_t length) {
    return end - at >= length && memcmp(at, word, (size_t)length) == 0 ? at + length : NULL;
}

static At skip_value(At at, At end, int depth);

/* Past a name and its colon, from the name's first quote, to where the value begins. */
static At skip_name(At at, At end) {
    if (at >= end || *at != '"' || (at = skip_string(at + 1, end)) == NULL) return NULL;
    at = skip_space(at, end);
    return at < end && *at == ':' ? skip_space(at + 1, end) : NULL;
}

/* Past an array or object, from its first bracket. */
static At skip_container(At at, At end, int depth) {
    const uint8_t closing = *at == '{' ? '}' : ']';
    if (depth >= MAX_DEPTH) return NULL;
    at = skip_space(at + 1, end);
    if (at < end && *at == closing) return at + 1;
    for (;;) {
        if (closing == '}' && (at = skip_name(at, end)) == NULL) return NULL;
        if ((at = skip_value(at, end, depth + 1)) == NULL) return NULL;
        at = skip_space(at, end);
        if (at >= end) return NULL;
        if (*at == closing) return at + 1;
        if (*at != ',') return NULL;
        at = skip_space(at + 1, end);
    }
}

static At skip_value(At at, At end, int depth) {
    if (at >= end) return NULL;
    switch (*at) {
    case '"': return skip_string(at + 1, end);
    case '{': case '[': return skip_container(at, end, depth);
    case 't': return skip_word(at, end, "true", 4);
    case 'f': return skip_word(at, end, "false", 5);
    case 'n': return skip_word(at, end, "null", 4);
    default: return *at == '-' || is_digit(*at) ? skip_number(at, end) : NULL;
    }
}

/* Members that are looked for: their names, and where the value of each begins and ends; -1: it is not there. */
typedef struct {
    Py_ssize_t count;
    const char *names[MAX_NAMES];
    Py_ssize_t sizes[MAX_NAMES];
    Py_ssize_t places[2 * MAX_NAMES];
} Wanted;

/* Note a member if it is looked for; 0: it was there already. */
static int note(Wanted *wanted, At name, Py_ssize_t size, Py_ssize_t begin, Py_ssize_t stop) {
    for (Py_ssize_t i = 0; i < wanted->count; i++) {
        if (wanted->sizes[i] != size || memcmp(wanted->names[i], name, (size_t)size) != 0) continue;
        if (wanted->places[2 * i] >= 0) return 0;
        wanted->places[2 * i] = begin;
        wanted->places[2 * i + 1] = stop;
        return 1;
    }
    return 1;
}

/* Fills in the places; 0: no object that is judged here. */
static int find_members(Wanted *wanted, At start, At end) {
    At at = start;
    if (at >= end || *at != '{') return 0;
    at = skip_space(at + 1, end);
    if (at < end && *at == '}') return at + 1 == end;
    for (int count = 0; count < MAX_MEMBERS; count++) {
        const At name = at + 1;
        if (at >= end || *at != '"') return 0;
        const At value = skip_name(at, end);
        if (value == NULL) return 0;
        const At quote = memchr(name, '"', (size_t)(value - name));
        if (quote == NULL || memchr(name, '\\', (size_t)(quote - name)) != NULL) return 0; /* a name may be written in many ways */
        if ((at = skip_value(value, end, 1)) == NULL) return 0;
        if (!note(wanted, name, quote - name, value - start, at - start)) return 0;
        at = skip_space(at, end);
        if (at >= end) return 0;
        if (*at == '}') return at + 1 == end;
        if (*at != ',') return 0;
        at = skip_space(at + 1, end);
    }
    return 0;
}

/* The names, which are borrowed; 0: an exception is set. */
static int take_names(Wanted *wanted, PyObject *names) {
    if (!PyTuple_Check(names) || PyTuple_GET_SIZE(names) > MAX_NAMES) {
        PyErr_SetString(PyExc_TypeError, "expected a tuple of at most 16 names");
        return 0;
    }
    wanted->count = PyTuple_GET_SIZE(names);
    for (Py_ssize_t i = 0; i < wanted->count; i++) {
        PyObject *const name = PyTuple_GET_ITEM(names, i);
        if (!PyBytes_Check(name)) {
            PyErr_SetString(PyExc_TypeError, "expected names as bytes");
            return 0;
        }
        wanted->names[i] = PyBytes_AS_STRING(name);
        wanted->sizes[i] = PyBytes_GET_SIZE(name);
        wanted->places[2 * i] = wanted->places[2 * i + 1] = -1;
    }
    return 1;
}

static PyObject *places_of(const Wanted *wanted) {
    PyObject *const places = PyTuple_New(2 * wanted->count);
    for (Py_ssize_t i = 0; places != NULL && i < 2 * wanted->count; i++) {
        PyObject *const place = PyLong_FromSsize_t(wanted->places[i]);
        if (place == NULL) {
            Py_DECREF(places);
            return NULL;
        }
        PyTuple_SET_ITEM(places, i, place);
    }
    return places;
}

static PyObject *members_of(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    Wanted wanted;
    Py_buffer buffer;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected a text and names");
        return NULL;
    }
    if (!take_names(&wanted, args[1]) || PyObject_GetBuffer(args[0], &buffer, PyBUF_SIMPLE) < 0) return NULL;
    const At start = buffer.buf;
    const int is_judged = find_members(&wanted, start, start + buffer.len);
    PyBuffer_Release(&buffer);
    if (is_judged) return places_of(&wanted);
    Py_RETURN_NONE;
}

/* How many brackets open objects and arrays, those in strings included. */
static Py_ssize_t openings_in(At at, At end) {
    Py_ssize_t count = 0;
#if defined(__SSE2__) && defined(__x86_64__)
    const __m128i brace = _mm_set1_epi8('{'), bracket = _mm_set1_epi8('[');
    while (end - at >= 16) {
        __m128i counts = _mm_setzero_si128(); /* one for each place, of at most 255 blocks */
        for (int blocks = 0; blocks < 255 && end - at >= 16; blocks++, at += 16) {
            const __m128i bytes = _mm_loadu_si128((const __m128i *)at);
            const __m128i found = _mm_or_si128(_mm_cmpeq_epi8(bytes, brace), _mm_cmpeq_epi8(bytes, bracket));
            counts = _mm_sub_epi8(counts, found); /* what is found is -1 */
        }
        const __m128i sums = _mm_sad_epu8(counts, _mm_setzero_si128());
        count += _mm_cvtsi128_si64(sums) + _mm_cvtsi128_si64(_mm_unpackhi_epi64(sums, sums));
    }
#endif
    for (; at < end; at++) count += *at == '{' || *at == '[';
    return count;
}

static PyObject *count_openings(PyObject *Py_UNUSED(module), PyObject *text) {
    Py_buffer buffer;
    if (PyObject_GetBuffer(text, &buffer, PyBUF_SIMPLE) < 0) return NULL;
    const At start = buffer.buf;
    const Py_ssize_t count = openings_in(start, start + buffer.len);
    PyBuffer_Release(&buffer);
    return PyLong_FromSsize_t(count);
}

static PyMethodDef functions[] = {
    {"count_openings", count_openings, METH_O, "How many brackets open objects and arrays, those in strings included."},
    {"members_of", (PyCFunction)(void (*)(void))members_of, METH_FASTCALL,
     "Where the values of members of these names begin and end, -1 where there is none; None: ask msgspec."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "penstock.protocol.json_members", "Where the members of a JSON object are.", 0, functions,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_json_members(void) { return PyModule_Create(&module); }
