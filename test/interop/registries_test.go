package interop

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/ecosystem/huggingface/huggingfacetest"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
)

// tinyModel is a GGUF file without tensors, and a safetensors file with one.
func tinyModel(template string) (gguf, safetensors []byte) {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // to memory
	text := func(s string) {
		put(uint64(len(s)))
		b.WriteString(s)
	}
	b.WriteString("GGUF")
	put(uint32(3))
	put([]uint64{0, 2})
	for _, kv := range [][2]string{{"general.architecture", "llama"}, {"tokenizer.chat_template", template}} {
		text(kv[0])
		put(uint32(8))
		text(kv[1])
	}
	for b.Len()%32 != 0 {
		b.WriteByte(0)
	}
	gguf = bytes.Clone(b.Bytes())
	b.Reset()
	text(`{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`)
	b.Write(make([]byte, 16))
	return gguf, b.Bytes()
}

// An image with its signature, a chart of a repository and one of a registry, a model
// of a hub and one for Ollama are asked for in one request, cross together, pass the
// scanners, and are read by their own clients with nothing but the mirror to be reached.
func TestImagesChartsAndModelsCrossTogether(t *testing.T) {
	skopeo, hf, helm, crane := client(t, "skopeo"), filepath.Join(hubClient(t), "hf"), tool(t, helmModule), tool(t, craneModule)
	alone(t)
	host := distribution(t)
	image := ocidisttest.New()
	amd := image.Image("linux", "amd64", layer(t, "../../docs"), layer(t, "../../scripts"))
	list := image.List(amd, image.Image("linux", "arm64", layer(t, "../../changelog")))
	sig := image.Refer(list, "application/vnd.example.signature", []byte("signed"))
	image.Tags["1.4"], image.Tags["sha256-"+list.Digest.Hex()] = list.Digest, image.List(sig).Digest
	model := ocidisttest.New()
	gguf, weights := tinyModel("{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}")
	model.Tags["1b"] = model.Put(map[string]any{
		"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "config": model.Blob("application/vnd.docker.container.image.v1+json", []byte(`{"model_format":"gguf"}`)),
		"layers": []ocidisttest.Descriptor{model.Blob("application/vnd.ollama.image.model", gguf), model.Blob("application/vnd.ollama.image.template", []byte("{{ .Prompt }}"))},
	}).Digest
	for path, c := range map[string]*ocidisttest.Content{"team/app": image, "library/small": model} {
		if err := c.Push(t.Context(), "http://"+host+"/v2/"+path); err != nil {
			t.Fatal(err)
		}
	}
	work := t.TempDir()
	for _, v := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		t.Setenv(v, t.TempDir())
	}
	repo := filepath.Join(work, "repo")
	run(t, work, helm, "create", "front")
	run(t, work, helm, "package", "front", "--version", "1.0.0", "--destination", repo)
	run(t, work, helm, "package", "front", "--version", "2.0.0", "--destination", work)
	run(t, work, helm, "push", filepath.Join(work, "front-2.0.0.tgz"), "oci://"+host+"/charts", "--plain-http")
	run(t, work, helm, "repo", "index", repo)
	charts := httptest.NewServer(http.FileServer(http.Dir(repo)))
	t.Cleanup(charts.Close)
	hub := &huggingfacetest.Hub{Repository: "org/name", Commit: hubCommit, Large: []string{"model.safetensors", "small.gguf"}, Files: map[string][]byte{
		"config.json": []byte(`{"model_type":"llama"}`), "README.md": []byte("# A card\n"), "model.safetensors": weights, "small.gguf": gguf,
	}}
	hub.Start(t)
	hubAlone(t, hub.URL)
	t.Setenv("OLLAMA_REGISTRY", "http://"+host)

	dir, _ := crossed(t, map[string]string{"enisle.yaml": `
name: registries
target: {os: linux, arch: amd64}
bring:
  oci: [ "` + host + `/team/app:1.4" ]
  helm: [ {chart: front, repo: "` + charts.URL + `"}, "oci://` + host + `/charts/front:2.0.0" ]
  huggingface: [ "org/name" ]
  ollama: [ "small:1b" ]
  files: [ {from: "hf/org/name!*.gguf", as: model/tiny} ]
`})
	out := inside(t, dir, `
AT=127.0.0.1:8440
"`+crane+`" digest --insecure $AT/team/app:1.4
"`+skopeo+`" --insecure-policy --override-os linux --override-arch amd64 copy -q --src-tls-verify=false docker://$AT/team/app:1.4 dir:image && echo copied
curl -s "$URL/v2/team/app/referrers/`+string(list.Digest)+`"
"`+helm+`" repo add island "$URL/helm" >/dev/null
"`+helm+`" pull island/front --version 1.0.0 && "`+helm+`" pull oci://$AT/charts/front --version 2.0.0 --plain-http >/dev/null && ls front-*.tgz
export $("$ENISLE" mirror config hf --url "$URL")
"`+hf+`" download org/name --local-dir model >/dev/null 2>&1 && sha256sum model/small.gguf
for name in library/small:1b library/tiny:latest org/name:latest; do
  curl -s "$URL/v2/${name%:*}/manifests/${name#*:}" | tr -d ' \n' | grep -o 'image.model","digest":"sha256:[0-9a-f]*' || echo no $name
done
curl -s -o /dev/null "$URL/v2/registry.example/other/app/manifests/7"
curl -s -o /dev/null -A ollama/0.12 "$URL/v2/library/llama3/manifests/8b"
"$ENISLE" -C high misses
if curl -s -o /dev/null --max-time 2 http://192.0.2.1/; then echo LEAK; fi
`)
	for _, want := range []string{string(list.Digest) + "\n", "copied\n", string(sig.Digest), "front-1.0.0.tgz", "front-2.0.0.tgz", "- registry.example/other/app:7", "- llama3:8b"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	var sum string
	for d, b := range model.Blobs {
		if bytes.Equal(b, gguf) {
			sum = d.Hex()
		}
	}
	if n := strings.Count(out, sum); n != 4 { // hf, and three models for Ollama over the same bytes
		t.Errorf("the model came %d times: %s", n, out)
	}
	if strings.Contains(out, "LEAK") {
		t.Error("something outside answered")
	}
	if _, err := os.Stat(filepath.Join(dir, "image", "manifest.json")); err != nil {
		t.Error(err)
	}
}
