"""Try common HTTP clients against the real service: one row of a table per way to send an image.

python scripts/clients.py [--node FOLDER] [--url URL]

In Python: pip install requests requests-toolbelt aiohttp httpx. In Node: npm install axios form-data got
superagent, in FOLDER. Clients that are not installed are listed at the end.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

NAME, QUOTED = "фото Füße 写.png", 'a "b" 100%.png'

# Programs take the service's URL and a file's path, and print status, Content-Disposition and body, separated
# by tabs.

PYTHON = """import os, sys
url, path = sys.argv[1:]
name = os.path.basename(path)
def data(): return open(path, 'rb').read()
def show(status, headers, body):
    print(status, headers.get('content-disposition', ''), body[:200], sep='\\t')
"""
REQUESTS = """import requests
r = requests.post(url + '/v1/restore', data={'task': 'denoise'}, files={'image': FILE})
show(r.status_code, r.headers, r.content)
"""
TOOLBELT = """import requests
from requests_toolbelt import MultipartEncoder
m = MultipartEncoder({'task': 'denoise', 'image': (name, open(path, 'rb'), 'image/png')})
r = requests.post(url + '/v1/restore', data=m, headers={'Content-Type': m.content_type})
show(r.status_code, r.headers, r.content)
"""
AIOHTTP = """import aiohttp, asyncio
async def main():
    form = aiohttp.FormData(OPTIONS)
    form.add_field('task', 'denoise')
    form.add_field('image', FILE)
    async with aiohttp.ClientSession() as s, s.post(url + '/v1/restore', data=form) as r:
        show(r.status, r.headers, await r.read())
asyncio.run(main())
"""
URLLIB3 = """import urllib3
from urllib3.fields import RequestField
f = RequestField('image', data(), name, {}, header_formatter=urllib3.fields.FORMATTER)
f.make_multipart(content_type='image/png')
r = urllib3.request('POST', url + '/v1/restore', fields=[('task', 'denoise'), f])
show(r.status, r.headers, r.data)
"""
EMAIL = """import http.client, urllib.parse
from email import policy
from email.mime.multipart import MIMEMultipart
from email.mime.image import MIMEImage
from email.mime.text import MIMEText
m = MIMEMultipart('form-data', policy=policy.HTTP)
for part, what in ((MIMEText('denoise'), {'name': 'task'}),
                   (MIMEImage(data(), 'png'), {'name': 'image', 'filename': name})):
    part.add_header('Content-Disposition', 'form-data', **what)
    m.attach(part)
body = m.as_bytes().split(b'\\r\\n\\r\\n', 1)[1]
c = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
c.request('POST', '/v1/restore', body, {'Content-Type': m['Content-Type']})
r = c.getresponse()
show(r.status, r.headers, r.read())
"""
NODE = """const [, url, path] = process.argv, fs = require('fs'), name = require('path').basename(path);
const { File } = require('buffer'), to = url + '/v1/restore';
const show = (status, headers, body) =>
  console.log([status, headers['content-disposition'] ?? '', String(body).slice(0, 200)].join('\\t'));
const web = (file) => {
  const form = new FormData(); form.append('task', 'denoise'); form.append('image', file); return form;
};
"""
FETCH = """fetch(to, { method: 'POST', body: web(FILE) }).then(async (r) =>
  show(r.status, Object.fromEntries(r.headers), await r.text()));
"""
AXIOS = """const axios = require('axios'), Form = require('form-data'), form = new Form();
form.append('task', 'denoise');
form.append('image', fs.createReadStream(path));
axios.post(to, form, { responseType: 'text', validateStatus: null }).then((r) =>
  show(r.status, r.headers, r.data));
"""
SUPERAGENT = """require('superagent').post(to).field('task', 'denoise').attach('image', path).ok(() => true)
  .then((r) => show(r.status, r.headers, r.text));
"""
GOT = """import('file://' + process.cwd() + '/node_modules/got/dist/source/index.js').then(({ got }) =>
  got.post(to, { body: web(new File([fs.readFileSync(path)], name)), throwHttpErrors: false }))
  .then((r) => show(r.statusCode, r.headers, r.body));
"""
GO = """package main
import ("bytes"; "fmt"; "io"; "mime/multipart"; "net/http"; "os"; "path/filepath")
func main() {
    data, _ := os.ReadFile(os.Args[2])
    var body bytes.Buffer
    w := multipart.NewWriter(&body)
    w.WriteField("task", "denoise")
    part, _ := w.CreateFormFile("image", filepath.Base(os.Args[2]))
    part.Write(data)
    w.Close()
    r, _ := http.Post(os.Args[1]+"/v1/restore", w.FormDataContentType(), BODY)
    text, _ := io.ReadAll(r.Body)
    fmt.Printf("%d\\t%s\\t%.200s\\n", r.StatusCode, r.Header.Get("Content-Disposition"), text)
}
"""
RUBY = """require 'net/http'
uri = URI(ARGV[0] + '/v1/restore')
q = Net::HTTP::Post.new(uri)
q.set_form([['task', 'denoise'], ['image', File.open(ARGV[1])]], 'multipart/form-data')
r = Net::HTTP.start(uri.host, uri.port) { |http| http.request(q) }
puts [r.code, r['content-disposition'], r.body[0, 200].inspect].join("\\t")
"""
PHP = """<?php
[, $url, $path] = $argv;
$c = curl_init($url . '/v1/restore');
$fields = ['task' => 'denoise', 'image' => new CURLFile($path, 'image/png', basename($path))];
curl_setopt_array($c, [CURLOPT_RETURNTRANSFER => 1, CURLOPT_HEADER => 1, CURLOPT_POSTFIELDS => $fields]);
$r = curl_exec($c);
preg_match('/content-disposition: (.*)\\r/i', $r, $m);
echo curl_getinfo($c, CURLINFO_HTTP_CODE), "\\t", $m[1] ?? '', "\\t", substr($r, -200);
"""
JAVA = """import java.io.*; import java.net.URI; import java.net.http.*; import java.nio.file.*;
public class Client {
  public static void main(String[] a) throws Exception {
    var path = Path.of(a[1]);
    var to = new ByteArrayOutputStream();
    var head = "--edge\\r\\nContent-Disposition: form-data; name=";
    to.write((head + "task\\r\\n\\r\\ndenoise\\r\\n" + head + "image; filename=\\"").getBytes("UTF-8"));
    to.write((path.getFileName().toString().replace("\\"", "%22") + "\\"\\r\\n\\r\\n").getBytes("UTF-8"));
    to.write(Files.readAllBytes(path));
    to.write("\\r\\n--edge--\\r\\n".getBytes());
    var body = HttpRequest.BodyPublishers.ofByteArray(to.toByteArray());
    var q = HttpRequest.newBuilder(URI.create(a[0] + "/v1/restore")).POST(body)
        .header("Content-Type", "multipart/form-data; boundary=edge").build();
    var r = HttpClient.newHttpClient().send(q, HttpResponse.BodyHandlers.ofString());
    System.out.println(r.statusCode() + "\\t" + r.headers().firstValue("content-disposition").orElse("")
        + "\\t" + r.body().lines().findFirst().orElse(""));
  }
}
"""


def ways(scratch: Path, node: Path | None) -> Iterator[tuple[str, str, list[str]]]:
    """Yield client, way of sending, and command, with placeholders {url}, {path}, {name} and {out}."""

    def curl(*options: str) -> list[str]:
        written = "%{http_code}\\t%header{content-disposition}\\t"
        return ["curl", "-s", "-o", "{out}", "-w", written, *options]

    def form(*options: str, image: str = "image=@{path}") -> list[str]:
        return curl("-F", "task=denoise", "-F", image, *options, "{url}/v1/restore")

    def python(text: str, **parts: str) -> list[str]:
        for name, part in parts.items():
            text = text.replace(name, part)
        return [sys.executable, "-W", "ignore", "-c", PYTHON + text, "{url}", "{path}"]

    def javascript(text: str) -> list[str]:
        return ["node", "-e", NODE + text, "{url}", "{path}"]

    def program(name: str, text: str, *command: str) -> list[str]:
        (scratch / name).write_text(text, encoding="utf-8")
        return [*command, str(scratch / name), "{url}", "{path}"]

    yield "curl", "`-F image=@FILE`", form()
    yield "", "`--form-escape`", form("--form-escape")
    yield "", "`-F 'image=<FILE'`: no file name", form(image="image=<{path}")
    yield "", "`-F 'image=@-;filename=NAME'`", form(image="image=@-;filename={name}")
    yield "", "`--http1.0`", form("--http1.0")
    yield "", "`--http2`: asks for an upgrade", form("--http2")
    yield "", "`-H 'Transfer-Encoding: chunked'`", form("-H", "Transfer-Encoding: chunked")
    yield "", "`-H 'Expect: 100-continue'`", form("-H", "Expect: 100-continue")
    yield "", "`-F 'image=@FILE;encoder=base64'`", form(image="image=@{path};encoder=base64")
    yield "", "`--data-binary @FILE`: no form", curl("--data-binary", "@{path}", "{url}/v1/restore")
    yield "", "`-I /healthz`: HEAD", curl("-I", "{url}/healthz")
    yield "wget", "`--spider /`: HEAD", ["wget", "-nv", "--spider", "{url}/"]
    yield "requests", "`files={'image': open(PATH, 'rb')}`", python(REQUESTS, FILE="open(path, 'rb')")
    yield "", "`files={'image': bytes}`", python(REQUESTS, FILE="data()")
    yield "", "`files={'image': (None, bytes)}`: no file name", python(REQUESTS, FILE="(None, data())")
    yield "requests-toolbelt", "`MultipartEncoder`, streamed", python(TOOLBELT)
    for formatter in ("format_header_param_rfc2231", "format_multipart_header_param"):
        yield "urllib3", f"`{formatter}`", python(URLLIB3, FORMATTER=formatter)
    httpx = REQUESTS.replace("requests", "httpx")
    yield "httpx", "`files={'image': open(PATH, 'rb')}`", python(httpx, FILE="open(path, 'rb')")
    yield "", "`files={'image': (None, bytes)}`: no file name", python(httpx, FILE="(None, data())")
    yield "aiohttp", "`FormData()`", python(AIOHTTP, OPTIONS="", FILE="open(path, 'rb')")
    quotes = {"OPTIONS": "quote_fields=False"}
    yield "", "`FormData(quote_fields=False)`", python(AIOHTTP, FILE="open(path, 'rb')", **quotes)
    yield "", "`add_field('image', bytes)`", python(AIOHTTP, OPTIONS="", FILE="data()")
    yield "Python's email", "`MIMEImage`: base64", python(EMAIL)
    yield (
        "Node's fetch",
        "a `File`",
        javascript(FETCH.replace("FILE", "new File([fs.readFileSync(path)], name)")),
    )
    yield "", "a `Blob`", javascript(FETCH.replace("FILE", "new Blob([fs.readFileSync(path)])"))
    if node is not None:
        yield "axios, form-data", "a stream", javascript(AXIOS)
        yield "superagent", "`attach`", javascript(SUPERAGENT)
        yield "got", "a `File`", javascript(GOT)
    yield "Go's net/http", "`CreateFormFile`", program("a.go", GO.replace("BODY", "&body"), "go", "run")
    chunked = GO.replace("BODY", "io.MultiReader(&body)")
    yield "", "the same, chunked", program("b.go", chunked, "go", "run")
    yield "Ruby's Net::HTTP", "`set_form`", program("a.rb", RUBY, "ruby")
    yield "PHP's curl", "`CURLFile`", program("a.php", PHP, "php")
    java = ("java", "-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8")
    yield "Java's HttpClient", "a form by hand; asks for an upgrade", program("Client.java", JAVA, *java)


def tried(command: list[str], folder: Path, url: str, path: Path, out: Path) -> tuple[str, str]:
    """Run a command; return the status, and the result's name or the error."""
    given = {"url": url, "path": str(path), "name": path.name, "out": str(out)}
    filled = [re.sub(r"\{(url|path|name|out)\}", lambda found: given[found[1]], part) for part in command]
    out.write_bytes(b"")
    with path.open("rb") as file:
        done = subprocess.run(
            filled,
            cwd=folder,
            stdin=file,
            capture_output=True,
            timeout=120,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
    status, _, rest = done.stdout.decode("utf-8", "replace").partition("\t")
    named, _, body = rest.partition("\t")
    if error := re.search(r'"error": ?"(.*?)"\}', body + out.read_text("utf-8", "replace")):
        return status, error[1]
    if exact := re.search(r"filename\*=UTF-8''(\S+)", named):
        return status, f"`{unquote(exact[1])}`"
    if plain := re.search(r'filename="(.*?)"', named):
        return status, f"`{plain[1]}`"
    if status:
        return status, body.strip()[-120:]
    return f"exit {done.returncode}", " ".join(done.stderr.decode("utf-8", "replace").split())[-120:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--node", type=Path, help="Folder with node_modules.")
    parser.add_argument("--url", help="URL of a running service.")
    args = parser.parse_args()
    service, url = None, args.url
    if url is None:
        command = [sys.executable, "-m", "maximir", "serve", "--port", "0"]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        url = re.search(r"http://\S+\d", service.stdout.readline())[0]
    missing = set()
    try:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            for name in (NAME, QUOTED):
                Image.effect_noise((64, 64), 60).convert("RGB").save(scratch / name)
            print(f"Of `{NAME}` and of `{QUOTED}`:\n")
            print("| client | how | status | the result's name, or the error |\n| --- | --- | --- | --- |")
            for client, how, command in ways(scratch, args.node):
                if shutil.which(command[0]) is None:
                    missing.add(command[0])
                    continue
                answers = [
                    tried(command, args.node or scratch, url, scratch / name, scratch / "out")
                    for name in (NAME, QUOTED)
                ]
                said = ", ".join(dict.fromkeys(words for _, words in answers))
                print(f"| {client} | {how} | {answers[0][0]} | {said} |", flush=True)
    finally:
        if service is not None:
            service.terminate()
    if missing:
        print(f"Not installed: {', '.join(sorted(missing))}", file=sys.stderr)


if __name__ == "__main__":
    main()
