"""Reads a segment, from docs/formats/segment.md alone: nothing here is taken from the program that writes them.

Python's library, and libzstd and libxxhash through ctypes. spans(path) gives every span of the file in its order, as plain
dictionaries; every byte is checked against its checksum on the way, and that all bytes were referred to.
"""

import ctypes
import ctypes.util
import struct
import sys

GROUP_COLUMNS = ['span_id', 'parent', 'foreign', 'start', 'duration', 'operation', 'status', 'flags', 'shape', 'shapes',
                 'trace_state', 'status_message', 'dropped', 'events', 'links']
NONE, STRING, BOOL, INT, DOUBLE, ARRAY, MAP, BYTES = range(8)
NOTHING, NUMBERS, DICTIONARY, PLAIN = range(4)


def library(name, fallback):
    return ctypes.CDLL(ctypes.util.find_library(name) or fallback)


zstd = library('zstd', 'libzstd.so.1')
zstd.ZSTD_decompress.restype = ctypes.c_size_t
zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
xxhash = library('xxhash', 'libxxhash.so.0')
xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def xxh3(data, seed=0):
    return xxhash.XXH3_64bits_withSeed(bytes(data), len(data), seed)


def mix(x):
    """The permutation of "Ids"; unmix is the way back."""
    x &= 2**64 - 1
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 % 2**64
    x = (x ^ x >> 27) * 0x94d049bb133111eb % 2**64
    return x ^ x >> 31


def unmix(x):
    for shift, factor in ((31, pow(0x94d049bb133111eb, -1, 2**64)), (27, pow(0xbf58476d1ce4e5b9, -1, 2**64)), (30, 1)):
        y = x
        for _ in range(64 // shift):
            y = x ^ y >> shift
        x = y * factor % 2**64
    return x


def unzigzag(n):
    return n >> 1 if n % 2 == 0 else -(n >> 1) - 1


class Reader:
    """Takes things from the front of some bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise ValueError('the bytes end too early')
        self.at += n
        return self.data[self.at - n:self.at]

    def u8(self):
        return self.take(1)[0]

    def u32(self):
        return struct.unpack('<I', self.take(4))[0]

    def u64(self):
        return struct.unpack('<Q', self.take(8))[0]

    def varint(self):
        n = shift = 0
        while True:
            byte = self.u8()
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    def zigzag(self):
        n = self.varint()
        return (n >> 1) ^ -(n & 1)

    def string(self):
        return self.take(self.varint()).decode()

    def done(self):
        if self.at != len(self.data):
            raise ValueError(f'{len(self.data) - self.at} bytes are left')

    # Streams

    def byte_stream(self, n):
        if n == 0:
            return b''
        how = self.u8()
        if how == 0:
            return self.take(n)
        if how == 2:
            return bytes([self.u8()]) * n
        if how != 1:
            raise ValueError(f'byte stream {how}')
        packed = bytes(self.take(self.varint()))
        out = ctypes.create_string_buffer(n)
        if zstd.ZSTD_decompress(out, n, packed, len(packed)) != n:
            raise ValueError('zstd')
        return out.raw

    def numbers(self, n):
        if n == 0:
            return []
        encoding = self.u8()
        if encoding >= 128:
            value, step = self.varint(), self.zigzag()
            out = [value]
            for difference in self.encoded(encoding - 128, n - 1) if n > 1 else []:
                value = (value + difference + step) % 2**64
                out.append(value)
            return out
        return self.encoded(encoding, n)

    def encoded(self, encoding, n):
        if encoding == 0:
            return [self.varint()] * n
        if encoding == 1:
            base, bits = self.varint(), self.u8()
            whole = int.from_bytes(self.take((n * bits + 7) // 8), 'little')
            return [(base + (whole >> i * bits) % (1 << bits)) % 2**64 for i in range(n)]
        if encoding == 2:
            k = self.varint()
            values = [self.varint()]
            for _ in range(k - 1):
                values.append(values[-1] + self.varint())
            return [values[i] for i in self.byte_stream(n)]
        if encoding == 3:
            base, planes = self.varint(), self.u8()
            columns = [self.byte_stream(n) for _ in range(planes)]
            return [(base + int.from_bytes(bytes(c[i] for c in columns), 'little')) % 2**64 for i in range(n)]
        if encoding == 4:
            k, bits = self.u8(), ''.join(f'{b:08b}'[::-1] for b in self.take(self.varint()))
            rest = int.from_bytes(self.take((n * k + 7) // 8), 'little')
            quotients = [len(zeros) for zeros in bits.split('1')]
            if len(quotients) != n + 1 or quotients[n] > 7:
                raise ValueError('quotients')
            return [(quotients[i] << k) + (rest >> i * k) % (1 << k) for i in range(n)]
        raise ValueError(f'number stream {encoding}')

    def ids(self, n):
        """A column of n ids that is all there is, as numbers."""
        if len(self.data) - self.at == 8 * n:
            return [struct.unpack('>Q', self.take(8))[0] for _ in range(n)]
        before = [self.u64() - 1 for _ in range(self.varint())]
        sequence = self.sized(n)
        steps = iter(self.sized(sum(1 for s in sequence if s)))
        out = []
        for s in sequence:
            if s == 0:
                out.append(struct.unpack('>Q', self.take(8))[0])
            else:
                before[s - 1] += 1 + unzigzag(next(steps))
                out.append(mix(before[s - 1]))
        self.done()
        return out

    def sized(self, n):
        r = Reader(self.take(self.varint()))
        out = r.numbers(n)
        r.done()
        return out

    def list(self, n):
        lengths = self.sized(n)
        r = Reader(self.byte_stream(sum(lengths)))
        return [r.take(length) for length in lengths]

    # Values

    def value(self):
        kind = self.u8()
        if kind == NONE:
            return {}
        if kind == STRING:
            return {'stringValue': self.string()}
        if kind == BYTES:
            return {'bytesValue': bytes(self.take(self.varint()))}
        if kind == BOOL:
            return {'boolValue': self.u8() != 0}
        if kind == INT:
            return {'intValue': self.zigzag()}
        if kind == DOUBLE:
            return {'doubleValue': struct.unpack('<d', self.take(8))[0]}
        if kind == ARRAY:
            return {'arrayValue': [self.value() for _ in range(self.varint())]}
        if kind == MAP:
            return {'kvlistValue': [(self.string(), self.value()) for _ in range(self.varint())]}
        raise ValueError(f'value {kind}')

    def attributes(self):
        n, dropped = self.varint(), self.varint()
        return [(self.string(), self.value()) for _ in range(n)], dropped

    def resource(self):
        attributes, dropped = self.attributes()
        return {'attributes': attributes, 'dropped': dropped, 'schema': self.string()}

    def scope(self):
        name, version = self.string(), self.string()
        attributes, dropped = self.attributes()
        return {'name': name, 'version': version, 'attributes': attributes, 'dropped': dropped, 'schema': self.string()}

    def events(self, start):
        out = []
        for _ in range(self.varint()):
            time, name = (start + self.zigzag()) % 2**64, self.string()
            attributes, dropped = self.attributes()
            out.append({'time': time, 'name': name, 'attributes': attributes, 'dropped': dropped})
        return out

    def links(self):
        out = []
        for _ in range(self.varint()):
            trace, span = self.take(16).hex(), self.take(8).hex()
            flags, state = self.varint(), self.string()
            attributes, dropped = self.attributes()
            out.append({'trace_id': trace, 'span_id': span, 'flags': flags, 'trace_state': state, 'attributes': attributes,
                        'dropped': dropped})
        return out


class Segment:
    def __init__(self, data):
        self.data = data
        self.seen = []  # the parts of the file that were read
        if data[:8] != b'PUGSEG\r\n' or xxh3(data[:56]) != struct.unpack('<Q', data[56:64])[0]:
            raise ValueError('the header is damaged')
        version, required, optional = struct.unpack('<III', data[8:20])
        if version != 1 or required & ~3:
            raise ValueError(f'version {version}, required features {required}')
        self.derived_ids = bool(required & 1)
        self.lists_by_column = bool(required & 2)
        self.records = struct.unpack('<QQ', data[24:40]) if optional & 1 else None
        trailer = data[-32:]
        offset, length, checksum = struct.unpack('<QQQ', trailer[:24])
        footer = data[offset:offset + length]
        if trailer[24:] != b'PUGSEND\n' or offset + length + 32 != len(data) or xxh3(footer, xxh3(trailer[:16])) != checksum:
            raise ValueError('the footer or the trailer is damaged')
        self.seen += [(0, 64), (offset, len(data) - offset)]
        self.read_footer(Reader(footer))

    def block(self, offset, length, checksum):
        data = self.data[offset:offset + length]
        if len(data) != length or (length and xxh3(data) & 0xffffffff != checksum):
            raise ValueError(f'the block at {offset} is damaged')
        self.seen.append((offset, length))
        return Reader(data)

    def reference(self, r):
        return r.varint(), r.varint(), r.u32()

    def read_footer(self, r):
        self.n_spans, self.n_traces, self.start_min, self.start_max = (r.u64() for _ in range(4))
        strings, columns, resources, scopes, operations, hashes = [self.reference(r) for _ in range(6)]
        trace_blocks = [(self.reference(r), r.varint(), r.varint()) for _ in range(r.varint())]
        self.groups = []
        for _ in range(r.varint()):
            g = {'directory': self.reference(r), 'rows': r.varint(), 'trace': r.varint(), 'offset': r.varint()}
            g['start_min'] = self.start_min + r.varint()
            g['start_max'] = g['start_min'] + r.varint()
            g['duration_min'] = r.varint()
            g['duration_max'] = g['duration_min'] + r.varint()
            self.groups.append(g)
        r.done()
        self.read_strings(self.block(*strings))
        self.read_columns(self.block(*columns))
        self.resources = self.read_blobs(self.block(*resources), Reader.resource)
        self.scopes = self.read_blobs(self.block(*scopes), Reader.scope)
        self.read_operations(self.block(*operations))
        self.read_traces(trace_blocks)
        self.read_hashes(self.block(*hashes))

    def read_strings(self, r):
        n, self.strings = r.varint(), []
        for _ in range(r.varint()):
            b = self.block(*self.reference(r))
            first = r.string()
            block = [bytes(s).decode() for s in b.list(min(512, n - len(self.strings)))]
            b.done()
            assert block[0] == first
            self.strings += block
        r.done()
        assert [s.encode() for s in self.strings] == sorted({s.encode() for s in self.strings})

    def read_columns(self, r):
        self.columns = []
        for _ in range(r.varint()):
            c = {'key': self.strings[r.varint()], 'type': r.u8(), 'how': r.u8(), 'values': r.varint()}
            if c['how'] == DICTIONARY:
                k = r.varint()
                b = self.block(*self.reference(r))
                c['dictionary'] = [self.strings[i] for i in b.numbers(k)]
                b.done()
            self.columns.append(c)
        r.done()

    def read_blobs(self, r, one):
        out = []
        for item in r.list(r.varint()):
            b = Reader(item)
            out.append(one(b))
            b.done()
        r.done()
        return out

    def read_operations(self, r):
        n = r.varint()
        resource, scope, name, kind, spans = (r.sized(n) for _ in range(5))
        r.done()
        self.operations = [(self.resources[resource[i]], self.scopes[scope[i]], self.strings[name[i]], kind[i]) for i in range(n)]
        assert sum(spans) == self.n_spans

    def trace_ids(self, r, n):
        high = Reader(r.take(r.varint())).ids(n)
        ahead = Reader(r.take(r.varint())).ids(n)
        return [f'{h:016x}{mix(unmix(a) + unmix(h)):016x}' for h, a in zip(high, ahead)]

    def read_traces(self, blocks):
        self.traces = []
        for reference, n, spans in blocks:
            r = self.block(*reference)
            ids = self.trace_ids(r, n) if self.derived_ids else [r.take(16).hex() for _ in range(n)]
            counts, starts, lengths, root, operation, errors, orphans, services = (r.sized(n) for _ in range(8))
            names, of_service, wrong = (r.sized(sum(services)) for _ in range(3))
            r.done()
            assert sum(counts) == spans and sum(of_service) == spans and sum(wrong) == sum(errors)
            for i in range(n):
                self.traces.append({'id': ids[i], 'spans': counts[i], 'start': starts[i], 'errors': errors[i],
                                    'orphans': orphans[i]})
        assert len(self.traces) == self.n_traces

    def read_hashes(self, r):
        entries = []
        for _ in range(r.varint()):
            b = self.block(*self.reference(r))
            n, first = r.varint(), r.varint()
            hashes, ordinals = b.sized(n), b.numbers(n)
            b.done()
            assert hashes[0] == first
            entries += zip(hashes, ordinals)
        r.done()
        assert entries == sorted((xxh3(bytes.fromhex(t['id'])) & 0xffffffff, i) for i, t in enumerate(self.traces))

    def coded(self, number):
        return self.strings[number - 1] if number else ''

    # Groups

    def directory(self, g):
        r, at = self.block(*g['directory']), g['offset']

        def next_block():
            nonlocal at
            length, checksum = r.varint(), r.u32()
            at += length
            return self.block(at - length, length, checksum)

        fixed = {name: next_block() for name in GROUP_COLUMNS}
        n_shapes, n_cells, columns, number = r.varint(), r.varint(), {}, -1
        n_columns = r.varint()
        lists = [[] for _ in range(g['rows'])] if self.lists_by_column and n_columns and not n_shapes else None
        for _ in range(n_columns):
            number += r.varint() + 1
            n, column = r.varint(), self.columns[number]
            b = next_block()
            if lists is not None:
                row = -1
                for gap in b.sized(n):
                    row += gap + 1
                    lists[row].append(number)
            columns[number] = iter(self.column_values(column, n, b))
            if column['how'] == PLAIN and column['type'] == STRING:
                next_block()  # a filter: for those who search
            if column['type'] == INT:
                r.zigzag(), r.zigzag()
        r.done()
        return fixed, n_shapes, n_cells, columns, lists

    def column_values(self, column, n, r):
        if column['how'] == NOTHING:
            return [{}] * n
        if column['how'] == DICTIONARY:
            out = [{'stringValue': column['dictionary'][i]} for i in r.numbers(n)]
        elif column['how'] == NUMBERS:
            as_value = {
                BOOL: lambda v: {'boolValue': v != 0},
                INT: lambda v: {'intValue': (v >> 1) ^ -(v & 1)},
                DOUBLE: lambda v: {'doubleValue': struct.unpack('<d', struct.pack('<Q', v))[0]},
            }[column['type']]
            out = [as_value(v) for v in r.numbers(n)]
        else:
            as_value = {STRING: lambda b: {'stringValue': bytes(b).decode()}, BYTES: lambda b: {'bytesValue': bytes(b)}}.get(
                column['type'], lambda b: Reader(b).value())
            out = [as_value(b) for b in r.list(n)]
        r.done()
        return out

    def shapes(self, r, n_shapes, n_cells):
        lengths, cells = r.sized(n_shapes), r.numbers(n_cells)
        r.done()
        out, at = [], 0
        for length in lengths:
            shape, before = [], -1
            for gap in cells[at:at + length]:
                before = (before + 1 + gap) % len(self.columns)
                shape.append(before)
            out.append(shape)
            at += length
        return out

    def spans(self):
        rows, self.by_column = [], set()  # which ways of keeping lists of columns there are
        ordinal, place = 0, 0
        for g in self.groups:
            n = g['rows']
            fixed, n_shapes, n_cells, columns, lists = self.directory(g)
            column = {name: fixed[name].numbers(n) for name in ('parent', 'start', 'duration', 'operation', 'status', 'flags',
                                                                'trace_state', 'status_message')}
            self.by_column.add(lists is not None)
            if lists is None:
                shapes = self.shapes(fixed['shapes'], n_shapes, n_cells)
                lists = [shapes[k] for k in fixed['shape'].numbers(n)]
            dropped = [fixed['dropped'].sized(n), fixed['dropped'].sized(n), fixed['dropped'].numbers(n)]
            events, links = fixed['events'].list(n), fixed['links'].list(n)
            ids = fixed['span_id'].ids(n)
            assert ordinal == g['trace']
            before = None
            for i in range(n):
                trace = self.traces[ordinal]
                start = (before if before is not None else trace['start']) + column['start'][i]
                resource, scope, name, kind = self.operations[column['operation'][i]]
                parent = column['parent'][i]
                rows.append({
                    'trace_id': trace['id'], 'span_id': f'{ids[i]:016x}', 'start': start,
                    # the place in the trace, or the id itself
                    'parent': fixed['foreign'].take(8).hex() if parent == 2**32 else parent,
                    'first': len(rows) - place,
                    'end': (start + column['duration'][i]) % 2**64, 'name': name, 'kind': kind, 'resource': resource,
                    'scope': scope, 'status': column['status'][i], 'flags': column['flags'][i],
                    'trace_state': self.coded(column['trace_state'][i]),
                    'status_message': self.coded(column['status_message'][i]),
                    'dropped': [d[i] for d in dropped],
                    'attributes': [(self.columns[c]['key'], next(columns[c])) for c in lists[i]],
                    'events': Reader(events[i]).events(start) if len(events[i]) else [],
                    'links': Reader(links[i]).links() if len(links[i]) else [],
                })
                before, place = start, place + 1
                if place == trace['spans']:
                    ordinal, place, before = ordinal + 1, 0, None
            for r in fixed.values():
                if r.at:
                    r.done()
        for row in rows:
            if isinstance(row['parent'], int):
                row['parent'] = rows[row['first'] + row['parent'] - 1]['span_id'] if row['parent'] else ''
            del row['first']
        assert len(rows) == self.n_spans
        return rows

    def check_whole(self):
        """After spans(): the parts that were read are the file, without gaps, each once."""
        at = 0
        for offset, length in sorted(p for p in self.seen if p[1]):
            assert offset == at, f'the bytes from {at} to {offset} are in no part'
            at = offset + length
        assert at == len(self.data)


def read(path):
    with open(path, 'rb') as f:
        return Segment(f.read())


if __name__ == '__main__':
    for name in sys.argv[1:]:
        segment = read(name)
        found = segment.spans()
        segment.check_whole()
        print(f'{name}: {len(found)} spans of {segment.n_traces} traces, log records {segment.records}')
