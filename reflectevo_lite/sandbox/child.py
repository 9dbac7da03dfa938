"""The child's side of `sandbox`: locks itself in, runs one program, answers with typed values.

`parent.py` starts this file as a script and gives it a job (marshal, on standard input). The first line of the answer
names the layers that hold and is written before the program begins; nothing after it is trusted, so nothing here guards
its own names against the program: a forged answer is worth no more than a returned value.

A value travels as JSON, all but null, true, numbers, strings and lists as {kind: body} with the kinds of `decode`. This
is written by hand, for importing json would double the time it takes to start."""

import codecs
import ctypes
import marshal
import os
import sys
from _json import encode_basestring_ascii as quote

# May be imported for a program before it is locked in (then no file opens). None acts on import or needs a display.
with open(os.path.join(os.path.dirname(__file__), "modules.txt"), encoding="utf-8") as _names:
    SAFE_MODULES = set(_names.read().split())
# What functions of these modules import only when they are called.
LAZY = {"collections": "heapq", "datetime": "_strptime", "time": "_strptime", "concurrent": "concurrent.futures.thread"}
CODEC = "codec "  # goes before the name of a codec where names of modules stand too
ONLY_AST = 0x400  # ast.PyCF_ONLY_AST without importing ast, which takes 7 ms
MAX_ERROR = 300  # characters


# ---------------------------------------------------------------- values
class Opaque:
    """Stands for a value that cannot travel: true, not None, and equal to nothing but itself."""


class Items(Opaque):
    """Stands for a range, a deque or a view: its items for tests that say `list(…)`, and equal to no list."""

    def __init__(self, items):
        self.items = list(items)

    def __getitem__(self, index):
        return self.items[index]

    def __len__(self):
        return len(self.items)


def decode(wire):
    """The value of parsed JSON as `encode` writes it; some ordinary exception if it is none."""
    if isinstance(wire, list):
        return [decode(x) for x in wire]
    if not isinstance(wire, dict):
        return wire
    ((kind, body),) = wire.items()
    return DECODERS[kind](body)


DECODERS = {
    "int": lambda body: int(body, 16),
    "complex": lambda body: complex(*body),
    "bytes": lambda body: body.encode("latin-1"),
    "decimal.Decimal": lambda body: __import__("decimal").Decimal(body),
    "fractions.Fraction": lambda body: __import__("fractions").Fraction(body[0], 1) / body[1],  # not of 1e999999999
    "tuple": lambda body: tuple(decode(x) for x in body),
    "set": lambda body: {decode(x) for x in body},
    "frozenset": lambda body: frozenset(decode(x) for x in body),
    "dict": lambda body: {decode(k): decode(v) for k, v in body},
    "object": lambda body: Opaque(),
    "iterator": lambda body: iter([decode(x) for x in body]),
    "items": lambda body: Items(decode(x) for x in body),
}


def encode(value):
    """JSON text for `decode`; RecursionError or MemoryError for what has no end."""
    kind = _kind(value)
    if kind in SCALARS:
        return SCALARS[kind](value)
    if kind is None:
        return _encode_iterable(value)
    if kind is dict:
        pairs = [f"[{encode(k)},{encode(v)}]" for k, v in dict.items(value)]
        return _tag("dict", "[" + ",".join(pairs) + "]")
    items = "[" + ",".join([encode(x) for x in kind.__iter__(value)]) + "]"
    return items if kind is list else _tag("set" if kind is KEYS else kind.__name__, items)


def _encode_iterable(value):
    """An iterator, range, deque or view by its items, for tests that say `list(…)`; else the name of the type."""
    views = f"{type(value).__module__}.{type(value).__name__}" in ITERABLES
    if views or hasattr(type(value), "__next__"):
        try:
            items = [x for x, _ in zip(value, range(MAX_ITEMS + 1), strict=False)]
            if len(items) <= MAX_ITEMS:
                return _tag("items" if views else "iterator", "[" + ",".join([encode(x) for x in items]) + "]")
        except Exception:  # one that fails is an object like others
            pass
    return _tag("object", quote(type(value).__name__))


def _kind(value):
    """The type as which == sees a value, or None. A subclass counts while it keeps its built-in type's ==."""
    cls = type(value)
    if f"{cls.__module__}.{cls.__name__}" in SCALARS:
        return f"{cls.__module__}.{cls.__name__}"
    for base in (*BUILT_IN, list, tuple, set, frozenset, dict, KEYS):
        if isinstance(value, base):
            # Counter and OrderedDict have an == of their own, and compare with a dict as one
            same = cls is base or cls.__eq__ is base.__eq__ or cls.__module__ == "collections"
            return base if same else None
    return None


def _tag(kind, body):
    return f'{{"{kind}":{body}}}'


def _float(x):
    return float.__repr__(x).replace("inf", "Infinity").replace("nan", "NaN")


def _bytes(x):
    return _tag("bytes", quote(x.decode("latin-1")))


ITERABLES = {"builtins.range", "collections.deque", "builtins.dict_values", "builtins.dict_items"}
MAX_ITEMS = 10_000  # of an iterator; one without end is an object like others
KEYS = type({}.keys())  # compares as a set
BUILT_IN = {
    type(None): lambda x: "null",
    bool: lambda x: "true" if x else "false",  # before int, of which it is a subclass
    # long digits are slow to read and Python refuses more than 4300 of them, so these travel in base 16
    int: lambda x: int.__repr__(x) if -(10**18) < x < 10**18 else _tag("int", f'"{hex(x)}"'),
    float: _float,
    str: quote,
    complex: lambda x: _tag("complex", f"[{_float(x.real)},{_float(x.imag)}]"),
    bytes: _bytes,
    bytearray: _bytes,
}
SCALARS = {
    **BUILT_IN,
    "decimal.Decimal": lambda x: _tag("decimal.Decimal", quote(str(x))),
    "fractions.Fraction": lambda x: _tag("fractions.Fraction", f"[{x.numerator},{x.denominator}]"),
}


# ---------------------------------------------------------------- before the program: imports, limits, locks
def names_needed(source):
    """Names of modules and codecs that the source asks for anywhere; none for what does not parse."""
    try:
        todo = [compile(source, "<program>", "exec", ONLY_AST, True)]
    except Exception:  # told when the program is run
        return
    while todo:
        node = todo.pop()
        kind = type(node).__name__
        if kind == "Import":
            yield from (alias.name for alias in node.names)
        elif kind == "ImportFrom" and node.module and not node.level:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif kind == "Call" and getattr(node.func, "attr", "") in ("encode", "decode"):
            texts = [getattr(arg, "value", None) for arg in node.args]
            yield from (CODEC + text for text in texts if isinstance(text, str))
        values = [getattr(node, field, None) for field in node._fields]
        todo += [x for v in values for x in (v if isinstance(v, list) else [v]) if hasattr(x, "_fields")]


def preload(name):
    """Import a safe module of the standard library, or a codec; nothing happens if there is none."""
    try:
        if name.startswith(CODEC):
            codecs.lookup(name.removeprefix(CODEC))
        elif _is_safe_module(name):
            __import__(name)
            __import__(LAZY.get(name.split(".")[0], name))
    except Exception:
        pass


def _is_safe_module(name):
    *parents, last = parts = name.split(".")
    parent = sys.modules.get(".".join(parents))
    is_attribute = parent is not None and (hasattr(parent, last) or not hasattr(parent, "__path__"))
    return parts[0] in SAFE_MODULES and "__main__" not in parts and not is_attribute


def limit(job):
    """Resource limits, never above those the parent has."""
    import resource

    tasks = 64 if os.geteuid() == 0 else 4096  # counted per user, and only root's checks have their own
    limits = {"AS": job["memory"], "CPU": job["cpu_s"], "FSIZE": 1 << 20, "NOFILE": 32, "CORE": 0, "NPROC": tasks}
    for name, wanted in limits.items():
        kind = getattr(resource, "RLIMIT_" + name)
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))


def lock(job):
    """Put on the layers that the job names. Returns the names of those that hold."""
    held = [name for name, step in (("namespaces", _unshare), ("uid", _drop_user)) if _holds(name, step, job)]
    _libc("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: set-user-id programs mean nothing from here on
    _libc("prctl", 1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL; a change of user would clear it
    if os.getppid() != job["parent"]:
        os._exit(1)
    held += [name for name, step in (("landlock", _landlock), ("seccomp", _seccomp)) if _holds(name, step, job)]
    return held


def _holds(name, step, job):
    if name not in job["layers"]:
        return False
    try:
        step(job)
        return True
    except OSError:
        return False


def _libc(name, *args):
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.restype = ctypes.c_long
    result = function(*(ctypes.c_ulong(x) if isinstance(x, int) else x for x in args))
    if ctypes.c_int(result).value < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def _unshare(job):
    own_users = 0 if os.geteuid() == 0 else 0x10000000  # CLONE_NEWUSER, without which only root may
    _libc("unshare", own_users | 0x40000000 | 0x08000000)  # CLONE_NEWNET, CLONE_NEWIPC


def _drop_user(job):
    if os.geteuid() != 0:
        raise PermissionError
    try:
        _become(job["uid"])
    except OSError:  # in a container high ones may not be mapped
        _become(65534)


def _become(uid):
    os.chown(".", uid, uid)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _landlock(job):
    """Deny what this kernel's Landlock knows of files, TCP, abstract sockets and foreign processes."""
    abi = _libc("syscall", 444, None, 0, 1)  # landlock_create_ruleset(…, VERSION)
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    words = [files, 3, 3][: 1 if abi < 4 else 2 if abi < 6 else 3]  # bind, connect; sockets, signals
    rules = b"".join(word.to_bytes(8, sys.byteorder) for word in words)
    fd = _libc("syscall", 444, rules, len(rules), 0)
    _libc("syscall", 446, fd, 0)  # landlock_restrict_self
    os.close(fd)


def _seccomp(job):
    """Install the filter that the parent made: PR_SET_SECCOMP, SECCOMP_MODE_FILTER, struct sock_fprog."""
    if not job["filter"]:
        raise OSError("no table of system calls for this machine")
    code = ctypes.create_string_buffer(job["filter"])
    program = (len(job["filter"]) // 8).to_bytes(8, "little") + ctypes.addressof(code).to_bytes(8, "little")
    _libc("prctl", 22, 2, program, 0, 0)


# ---------------------------------------------------------------- the program
def answers(job, given):
    """Run program and setup, then yield a line of JSON for both and one per call; an error comes last."""
    module = sys.modules["program"] = type(sys)("program")  # a real module: dataclasses and pickle look it up
    space = module.__dict__
    space.update(given)
    try:
        for name in ("code", "setup"):
            exec(compile(job[name], f"<{name}>", "exec", 0, True), space)
        yield '["value",null]'
        for call in job["calls"]:
            yield f'["value",{encode(eval(compile(call, "<test>", "eval", 0, True), space))}]'
    except BaseException as e:
        yield f'["error",{quote(describe(e))}]'


def describe(error):
    """Type and text of an exception, which may be hostile, in at most MAX_ERROR characters."""
    try:
        return f"{type(error).__name__}: {error}"[:MAX_ERROR]
    except BaseException:
        return "an exception whose text cannot be had"


def send(channel, line):
    """Write one message to the parent."""
    data = line.encode() + b"\n"
    while data:  # a pipe takes it in pieces
        data = data[os.write(channel, data) :]


def main():
    """Read the job, shut the doors one after the other, run, and end without waiting for threads."""
    with open(0, "rb", closefd=False) as f:
        job = marshal.load(f)
    channel = os.dup(1)
    for fd in (0, 1):
        os.dup2(2, fd)  # standard error is /dev/null
    limit(job)
    # what needs a file comes before the locks; as another user not even the interpreter's may be reachable
    for name in (*names_needed(job["code"]), *names_needed(job["setup"])):
        preload(name)
    given = {}
    if job["given"]:  # it judges: the values that a program before it returned, and modules for asserts
        given = {"given": decode(__import__("json").loads(job["given"])), **{m: __import__(m) for m in job["modules"]}}
    held = lock(job)
    send(channel, "[" + ",".join(f'"{name}"' for name in held) + "]")
    if set(job["required"]) <= set(held):
        for line in answers(job, given):
            send(channel, line)
    os._exit(0)


if __name__ == "__main__":
    main()
