"""A BigQuery of one dataset in Google's own implementation of GoogleSQL: statements in, rows out, a line of JSON each.

It is the reference implementation (ZetaSQL), compiled to WebAssembly, that the package `zetasql` holds, and runs in the
environment that `make reference` makes. `support.cloud.warehouse` talks to it.
"""

import base64
import ctypes
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import wasmtime
from zetasql.core.wasm_client import WasmClient, get_tzinfo_dir
from zetasql.wasi import get_wasm_path
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as service
from zetasql.wasi._pb2.zetasql.proto import options_pb2 as analyzer
from zetasql.wasi._pb2.zetasql.proto import simple_catalog_pb2
from zetasql.wasi._pb2.zetasql.public import options_pb2 as language
from zetasql.wasi._pb2.zetasql.public import simple_table_pb2, type_pb2, value_pb2

_MAKES: Final = re.compile(
    r"CREATE (?P<replaces>OR REPLACE )?TABLE (?P<unless>IF NOT EXISTS )?`(?P<name>[^`]+)`(\s+CLUSTER BY \w+)?\s+AS\s+",
    re.I,
)
#: Finer than BigQuery's microseconds.
_FINER: Final = ("FEATURE_TIMESTAMP_NANOS", "FEATURE_TIMESTAMP_PICOS")
_FIRST_DAY: Final = date(1970, 1, 1)
_Table = tuple[list[Any], Any]


class _Client(WasmClient):  # type: ignore[misc]  # ships no types
    """The same, but compiled once for each environment, which takes half a minute, and with whole blocks copied."""

    def __init__(self, wasm_path: str) -> None:
        config = wasmtime.Config()
        config.shared_memory = True
        engine = wasmtime.Engine(config)
        wasi = wasmtime.WasiConfig()
        wasi.inherit_stderr()
        wasi.preopen_dir(get_tzinfo_dir(), "/usr/share/zoneinfo")
        self.store = wasmtime.Store(engine)
        self.store.set_wasi(wasi)
        compiled = Path(sys.prefix) / "googlesql.compiled"
        if not compiled.exists():
            draft = compiled.with_name(f"{compiled.name}.{os.getpid()}")
            draft.write_bytes(wasmtime.Module.from_file(engine, wasm_path).serialize())
            draft.replace(compiled)
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        module = wasmtime.Module.deserialize_file(engine, str(compiled))
        self.exports = linker.instantiate(self.store, module).exports(self.store)
        self.exports["_initialize"](self.store)
        self.memory = self.exports["memory"]

    def write_bytes(self, ptr: int, data: bytes) -> None:
        ctypes.memmove(self._address(ptr), data, len(data))

    def read_bytes(self, ptr: int, size: int) -> bytes:
        return ctypes.string_at(self._address(ptr), size)

    def _address(self, ptr: int) -> int:
        return ctypes.addressof(self.memory.data_ptr().contents) + ptr


class Engine:
    """Tables by their names, and the statements that make and read them."""

    def __init__(self) -> None:
        self._client = _Client(get_wasm_path())
        options = self._client.call_grpc_func(
            "ZetaSqlLocalService_GetLanguageOptions",
            service.LanguageOptionsRequest(maximum_features=True),
            analyzer.LanguageOptionsProto,
        )
        left_out = {getattr(language, name) for name in _FINER}
        features = [feature for feature in options.enabled_language_features if feature not in left_out]
        self._language = analyzer.LanguageOptionsProto(
            product_mode=language.PRODUCT_EXTERNAL, enabled_language_features=features
        )
        self._tables: dict[str, _Table] = {}

    def clear(self) -> None:
        """Forget all tables."""
        self._tables.clear()

    def load(self, name: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """Make a table of rows; `columns` are types of GoogleSQL by name."""
        types = [_type(kind) for kind in columns.values()]
        made = [
            simple_table_pb2.SimpleColumnProto(name=column, type=kind)
            for column, kind in zip(columns, types, strict=True)
        ]
        data = service.TableData(
            row=[
                service.TableData.Row(cell=[_value(cell, kind) for cell, kind in zip(row, types, strict=True)])
                for row in rows
            ]
        )
        self._tables[name] = (made, service.TableContent(table_data=data))

    def run(self, sql: str) -> list[dict[str, Any]]:
        """Run a statement; one that makes a table has no rows."""
        makes = _MAKES.match(sql)
        if makes and makes["unless"] and makes["name"] in self._tables:
            return []
        columns, content = self._evaluated(sql[makes.end() :] if makes else sql)
        if makes:
            self._tables[makes["name"]] = (columns, content)
            return []
        return _rows(columns, content)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return all rows of a table."""
        return _rows(*self._tables[name])

    def _evaluated(self, sql: str) -> _Table:
        named = [name for name in self._tables if f"`{name}`" in sql]
        tables = [simple_table_pb2.SimpleTableProto(name=name, column=self._tables[name][0]) for name in named]
        catalog = simple_catalog_pb2.SimpleCatalogProto(
            name="all",
            table=tables,
            builtin_function_options=analyzer.ZetaSQLBuiltinFunctionOptionsProto(language_options=self._language),
        )
        request = service.EvaluateQueryRequest(
            sql=sql,
            options=analyzer.AnalyzerOptionsProto(language_options=self._language, default_timezone="UTC"),
            simple_catalog=catalog,
            table_content={name: self._tables[name][1] for name in named},
        )
        reply = self._client.call_grpc_func("ZetaSqlLocalService_EvaluateQuery", request, service.EvaluateQueryResponse)
        return list(reply.prepared.columns), reply.content


def _type(text: str) -> Any:
    """Return a type that is written as GoogleSQL writes it."""
    text = text.strip()
    if text.startswith("ARRAY<"):
        return type_pb2.TypeProto(
            type_kind=type_pb2.TYPE_ARRAY, array_type=type_pb2.ArrayTypeProto(element_type=_type(text[6:-1]))
        )
    if text.startswith("STRUCT<"):
        fields = [part.strip().partition(" ") for part in re.findall(r"[^,<]+(?:<[^>]*>)?", text[7:-1])]
        made = [type_pb2.StructFieldProto(field_name=name, field_type=_type(kind)) for name, _, kind in fields]
        return type_pb2.TypeProto(type_kind=type_pb2.TYPE_STRUCT, struct_type=type_pb2.StructTypeProto(field=made))
    kind = "DOUBLE" if text == "FLOAT64" else text
    return type_pb2.TypeProto(type_kind=getattr(type_pb2, f"TYPE_{kind}"))


def _value(value: Any, kind: Any) -> Any:
    if value is None:
        return value_pb2.ValueProto()
    match kind.type_kind:
        case type_pb2.TYPE_ARRAY:
            inner = [_value(item, kind.array_type.element_type) for item in value]
            return value_pb2.ValueProto(array_value=value_pb2.ValueProto.Array(element=inner))
        case type_pb2.TYPE_STRUCT:
            inner = [_value(value[field.field_name], field.field_type) for field in kind.struct_type.field]
            return value_pb2.ValueProto(struct_value=value_pb2.ValueProto.Struct(field=inner))
        case type_pb2.TYPE_INT64:
            return value_pb2.ValueProto(int64_value=value)
        case type_pb2.TYPE_DOUBLE:
            return value_pb2.ValueProto(double_value=value)
        case type_pb2.TYPE_BOOL:
            return value_pb2.ValueProto(bool_value=value)
        case type_pb2.TYPE_DATE:
            return value_pb2.ValueProto(date_value=(date.fromisoformat(value) - _FIRST_DAY).days)
        case type_pb2.TYPE_BYTES:
            return value_pb2.ValueProto(bytes_value=base64.b64decode(value))
        case type_pb2.TYPE_STRING:
            return value_pb2.ValueProto(string_value=value)
        case other:
            raise ValueError(f"values of {type_pb2.TypeKind.Name(other)} are made by SQL")


def _rows(columns: Sequence[Any], content: Any) -> list[dict[str, Any]]:
    return [
        {column.name: _plain(cell, column.type) for column, cell in zip(columns, row.cell, strict=True)}
        for row in content.table_data.row
    ]


def _plain(value: Any, kind: Any) -> Any:
    found = value.WhichOneof("value")
    match found:
        case None:
            return None
        case "array_value":
            return [_plain(item, kind.array_type.element_type) for item in value.array_value.element]
        case "struct_value":
            fields = zip(kind.struct_type.field, value.struct_value.field, strict=True)
            return {field.field_name: _plain(inner, field.field_type) for field, inner in fields}
        case "date_value":
            return (_FIRST_DAY + timedelta(days=value.date_value)).isoformat()
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "int64_value" | "double_value" | "bool_value" | "string_value" | "json_value":
            return getattr(value, found)
        case _:
            return f"<{found}>"


def main() -> None:
    """Answer each line: `clear`, `load`, `run` or `rows` with their arguments."""
    engine = Engine()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            reply = {"found": getattr(engine, name)(*arguments)}
        except Exception as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), flush=True)  # noqa: T201 - what is answered


if __name__ == "__main__":
    main()
