package pickle

import (
	"strings"

	"enisle/internal/judge/inspect"
)

// own returns the package of Python that a pickle stands in, such as "scipy" for
// scipy-1.0-….whl!scipy/sparse/data.npz; empty if it is in none.
func own(s inspect.Subject) string {
	if s.Ref.Kind != "pypi" {
		return ""
	}
	_, inside, _ := strings.Cut(s.Path, ".whl!")
	top, _, ok := strings.Cut(inside, "/")
	if !ok || top == "" || strings.ContainsAny(top, ".!") || strings.HasPrefix(top, "_") || strings.Contains(standard, " "+top+" ") {
		return ""
	}
	return top
}

// severity of a global that is on no list. Inside a package a pickle that
// imports only from that package (test data of numpy, scipy, joblib) can do
// nothing that its code, which runs anyway, could not: an approver sees it. A
// name from anywhere else refuses, as does the same pickle outside a package.
func severity(s inspect.Subject, module string) inspect.Severity {
	if top := own(s); top != "" && (module == top || strings.HasPrefix(module, top+".")) {
		return inspect.Warn
	}
	return inspect.Refuse
}

// standard are the modules of Python itself and of its installers (CPython 3.11,
// sys.stdlib_module_names, and names of Python 2): a package cannot claim them
// by a directory of that name.
const standard = " " +
	"Queue __builtin__ __future__ __main__ abc aifc antigravity argparse array ast asynchat asyncio asyncore atexit audioop " +
	"base64 bdb binascii bisect builtins bz2 cPickle cProfile calendar cgi cgitb chunk cmath cmd code codecs codeop " +
	"collections colorsys commands compileall concurrent configparser contextlib contextvars copy copy_reg copyreg crypt csv " +
	"ctypes curses dataclasses datetime dbm decimal difflib dis distutils doctest dummy_thread email encodings ensurepip enum " +
	"errno exceptions faulthandler fcntl filecmp fileinput fnmatch fractions ftplib functools gc genericpath getopt getpass " +
	"gettext glob graphlib grp gzip hashlib heapq hmac html http httplib idlelib imaplib imghdr imp importlib inspect io " +
	"ipaddress itertools json keyword lib2to3 linecache locale logging lzma mailbox mailcap marshal math mimetypes mmap " +
	"modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt ntpath nturl2path numbers opcode operator optparse os " +
	"os2 ossaudiodev pathlib pdb pickle pickletools pip pipes pkg_resources pkgutil platform plistlib popen2 poplib posix " +
	"posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue quopri random re readline " +
	"reprlib resource rlcompleter runpy sched secrets select selectors sets setuptools shelve shlex shutil signal site " +
	"sitecustomize smtpd smtplib sndhdr socket socketserver spwd sqlite3 sre_compile sre_constants sre_parse ssl stat " +
	"statistics string stringprep struct subprocess sunau symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile " +
	"termios textwrap this thread threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty turtle " +
	"turtledemo types typing unicodedata unittest urllib urllib2 usercustomize uu uuid venv warnings wave weakref webbrowser " +
	"winreg winsound wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport zlib zoneinfo "
