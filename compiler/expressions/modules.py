"""Modules: loading files, resolving imports and the names of a file.

`std.necks` is `stdlib/necks.det` and every `.det` file under `stdlib/necks/`, together with the primitives whose
`module` says so. A quoted path is a file relative to the importing one. Any other first segment is an installed
package: `acme.heads` is `heads.det` (or `heads/`) in the package `acme`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from detc.compiler import primitives
from detc.compiler.values import Builtin, ModuleRef, PrimitiveRef, TemplateRef
from detc.dsl import ast
from detc.dsl.diagnostics import WARNING, Edit, Report, closest, did_you_mean, error
from detc.dsl.source import Source, Span
from detc.dsl.tree_cache import parse_cached

Named = TemplateRef | PrimitiveRef | ModuleRef | Builtin
STDLIB = Path(__file__).resolve().parents[2] / "stdlib"
BUILTINS = (
    "len", "range", "min", "max", "sum", "mean", "abs", "floor", "ceil", "round", "sqrt", "log", "int", "float",
    "str", "params", "map", "pyramid", "image", "zip", "all", "any", "tensor", "instances", "proposals",
)  # fmt: skip
_DECLARED = re.compile(r"\b(?:component|model|data|train|target|interface|patch)\s+([A-Za-z_]\w*)")


@dataclass(eq=False)
class Unread:
    """A file of a module of several files that nothing has asked for yet.

    `mentions` holds every word that stands where a declaration's name would: finding them takes a hundredth of
    the time that reading the file takes. `read` adds the file's module to the members of its module.
    """

    mentions: frozenset[str]
    read: Callable[[Module], None]

    @classmethod
    def of(cls, path: Path, read: Callable[[Module], None]) -> Unread:
        """The file at `path`; one that cannot be read as text mentions nothing."""
        text = path.read_text(encoding="utf-8", errors="replace")
        return cls(frozenset(_DECLARED.findall(text)), read)


@dataclass(eq=False)
class Module:
    """Names that can be seen from inside one file (or one namespace of several files)."""

    name: str
    file: ast.File | None = None
    source: Source | None = None
    decls: dict[str, Named] = field(default_factory=dict)
    imports: dict[str, Named] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)  # names whose import failed, which is reported once, there
    members: list[Module] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    def lookup(self, name: str) -> Named | None:
        """A name as seen inside this module: own declarations, imports, the prelude."""
        found = self.decls.get(name)
        if found is None and name in self.imports:
            self.used.add(name)
            found = self.imports[name]
        return found or prelude(name)

    def export(self, name: str) -> Named | None:
        """A name as seen by an importer."""
        if name in self.decls:
            return self.decls[name]
        found = self._of_member(name)
        if found is not None:
            return found
        cls = primitives.find(self.name, name)
        if cls is None and self.name == "std.ops":
            cls = primitives.find("", name)  # ops that are in scope everywhere may be imported all the same
        return PrimitiveRef(cls) if cls is not None else None

    def _of_member(self, name: str) -> Named | None:
        """A declaration of one of the files; those that do not mention the name stay unread."""
        for member in self.members:
            if name in member.decls:
                return member.decls[name]
        while (mentioned := next((u for u in self.unread if name in u.mentions), None)) is not None:
            self._read(mentioned)
            if (found := self._of_member(name)) is not None:
                return found
        return None

    def _read(self, file: Unread) -> None:
        self.unread.remove(file)
        file.read(self)

    def exports(self) -> list[str]:
        """All names that can be imported from here."""
        while self.unread:
            self._read(self.unread[0])
        names = set(self.decls) | set(primitives.names_in(self.name))
        for member in self.members:
            names |= set(member.decls)
        return sorted(names)

    def visible(self) -> list[str]:
        """All names in scope, for suggestions."""
        module = _prelude_module()
        interfaces = module.decls if module is not None else {}
        return [*self.decls, *self.imports, *BUILTINS, *primitives.names_in(""), *interfaces]


@cache
def _prelude_module() -> Module | None:
    path = STDLIB / "prelude.det"
    return Loader().file(path, "std.prelude", library=True) if path.exists() else None


def prelude(name: str) -> Named | None:
    """Names that are in scope everywhere: functions, prelude primitives, prelude interfaces, `std`."""
    cls = primitives.find("", name)
    if name in BUILTINS:
        return Builtin(name)
    if cls is not None:
        return PrimitiveRef(cls)
    if name == "std" or any(m.split(".")[0] == name for m in primitives.modules()):
        return ModuleRef(name)
    module = _prelude_module()
    return module.decls.get(name) if module is not None else None


class Loader:
    """Loads modules once each and reports what is wrong in them."""

    def __init__(self, report: Report | None = None) -> None:
        self.report = report if report is not None else Report()
        self._files: dict[Path, Module] = {}
        self._named: dict[str, Module | None] = {}
        self._loading: list[tuple[Path, str]] = []

    def text(self, text: str, name: str = "<text>", path: str | None = None) -> Module:
        """A module of a text in memory."""
        return self._load(Source(name, text, path), name)

    def file(
        self,
        path: Path,
        name: str,
        *,
        library: bool = False,
        shown: str | None = None,
        into: Module | None = None,
    ) -> Module:
        """The module of a file; parsed once per path. It becomes a member of `into`."""
        path = path.resolve()
        if path not in self._files:
            source = Source(shown or path.name, path.read_text(encoding="utf-8"), str(path), library)
            self._loading.append((path, name))
            try:
                self._files[path] = self._load(source, name, into)
            finally:
                self._loading.pop()
        elif into is not None and all(m is not self._files[path] for m in into.members):
            into.members.append(self._files[path])  # read before, by its path
        return self._files[path]

    def _load(self, source: Source, name: str, into: Module | None = None) -> Module:
        tree, diagnostics = parse_cached(source)
        self.report.add(*diagnostics)
        module = Module(name, tree, source)
        if source.path:
            self._files[Path(source.path).resolve()] = module
        for decl in tree.decls:
            if isinstance(decl, (ast.RunDecl, ast.TestDecl)):
                continue
            other = module.decls.get(decl.name)
            if isinstance(other, TemplateRef):
                self._report(
                    "DET0205",
                    f"`{decl.name}` is declared twice in this file",
                    decl.name_span,
                    "declared again here",
                    secondary=[(other.decl.name_span, "first declared here")],
                )
                continue
            module.decls[decl.name] = TemplateRef(decl, module)
        if into is not None:  # before its imports: the files of one module may import from each other
            into.members.append(module)
        for item in tree.imports:
            self._import(module, item)
        return module

    def _report(self, code: str, message: str, place: Span, label: str, **more: object) -> None:
        self.report.add(*error(code, message, place, label, **more).diagnostics)  # type: ignore[arg-type]

    def _import(self, module: Module, item: ast.Import) -> None:
        target = self._resolve(module, item)
        if target is None:
            module.broken |= {item.alias} if item.alias is not None else {n.alias for n in item.names}
            return
        if item.alias is not None:
            self._bind(module, item.alias, ModuleRef(target.name, target), item.span)
        for name in item.names:
            found = target.export(name.name)
            if found is None and (nested := self.named(f"{target.name}.{name.name}")) is not None:
                found = ModuleRef(nested.name, nested)
            if found is None:
                from detc.compiler.expressions.elsewhere import library

                there = library().get(name.name)
                fix = closest(name.name, target.exports()) if there is None else None
                offers = f"it offers: {', '.join(target.exports()) or 'nothing'}"
                here = f"it is in another module: import {there} {{ {name.name} }}"
                self._report(
                    "DET0203",
                    f"`{item.module}` has no `{name.name}`",
                    name.span,
                    "not declared there" + (f"; did you mean `{fix}`?" if fix else ""),
                    help=here if there is not None else None if fix else offers,
                    fix=Edit(name.span, fix) if fix and name.name == name.alias else None,
                )
                module.broken.add(name.alias)
                continue
            self._bind(module, name.alias, found, name.span)

    def _member(self, path: Path, shown: str, target: Module) -> None:
        self.file(path, target.name, library=True, shown=shown, into=target)

    def _bind(self, module: Module, name: str, found: Named, place: Span) -> None:
        if name in module.decls or name in module.imports:
            self._report("DET0205", f"`{name}` is already a name of this file", place, "bound again here")
            return
        module.imports[name] = found

    def _resolve(self, module: Module, item: ast.Import) -> Module | None:
        if item.is_file:
            base = Path(module.source.path).parent if module.source and module.source.path else Path.cwd()
            path = (base / item.module).resolve()
            if path.suffix != ".det":
                self._report(
                    "DET0202",
                    f"`{item.module}` is not the name of a .det file",
                    item.module_span,
                    "imported here",
                    help='a file is imported by its path with the suffix: import "./heads.det" { Head }',
                )
                return None
            if not path.is_file():
                own = Path(module.source.path).name if module.source and module.source.path else ""
                near = [f"./{p.name}" for p in sorted(base.glob("*.det")) if p.name != own]
                self._report(
                    "DET0202",
                    f"there is no file `{item.module}`",
                    item.module_span,
                    "imported here" + did_you_mean(item.module, near),
                )
                return None
            cycle = [str(p.name) for p, _ in self._loading]
            if any(p == path for p, _ in self._loading):
                self._report(
                    "DET0204",
                    "the imports form a cycle: " + " -> ".join([*cycle, path.name]),
                    item.module_span,
                    "imported here while it is still being read",
                    help="move what both files need into a third one",
                )
                return None
            library = bool(module.source and module.source.library)
            return self.file(path, item.module, library=library, shown=item.module.removeprefix("./"))
        found = self.named(item.module)
        if found is None:
            known = known_modules()
            self._report(
                "DET0202",
                f"there is no module `{item.module}`",
                item.module_span,
                "imported here" + did_you_mean(item.module, known),
                help='a file is imported by a quoted path: import "./heads.det" { Head }',
            )
        return found

    def named(self, name: str) -> Module | None:
        """The module with this dotted name, or None."""
        if name not in self._named:
            self._named[name] = self._find(name)
        return self._named[name]

    def _find(self, name: str) -> Module | None:
        root, *rest = name.split(".")
        if root == "std":
            base = STDLIB
        else:
            spec = find_spec(root) if root.isidentifier() else None
            if spec is None or not spec.submodule_search_locations:
                return Module(name) if name in primitives.modules() else None
            base = Path(next(iter(spec.submodule_search_locations)))
        place = base.joinpath(*rest)
        files = [place.with_suffix(".det")] if rest and place.with_suffix(".det").is_file() else []
        if rest and place.is_dir():
            files += sorted(place.glob("*.det"))
        is_primitive = name in primitives.modules()
        if not files and not is_primitive:
            return None
        module = Module(name)
        self._named[name] = module
        for file in files:
            read = partial(self._member, file, f"{root}/{file.relative_to(base).as_posix()}")
            module.unread.append(Unread.of(file, read))
        return module


@cache
def shared_module(name: str) -> Module | None:
    """A module by its full name, loaded once a process; for names written out in full."""
    return Loader().named(name)


def known_modules() -> list[str]:
    """Names of all modules of the standard library and of the primitives."""
    names = set(primitives.modules())
    for path in STDLIB.rglob("*.det"):
        parts = path.relative_to(STDLIB).with_suffix("").parts
        names.add(".".join(("std", *parts[:1])))
    return sorted(names)


def unused_imports(module: Module, report: Report) -> None:
    """Warn about imported names that the file never uses; with errors, what is used is not known."""
    if module.file is None or report.errors:
        return
    for item in module.file.imports:
        names = [(item.alias, item.span)] if item.alias else [(n.alias, n.span) for n in item.names]
        for name, span in names:
            if name in module.imports and name not in module.used:
                found = error(
                    "DET0209", f"`{name}` is imported and never used", span, "not used", severity=WARNING
                )
                report.add(*found.diagnostics)
