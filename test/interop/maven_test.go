package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/maven"
	"enisle/internal/sandbox"
)

const pomXML = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>island.example</groupId>
  <artifactId>hello</artifactId>
  <version>1.0</version>
  <properties>
    <maven.compiler.source>11</maven.compiler.source>
    <maven.compiler.target>11</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>
    <dependency><groupId>com.google.code.gson</groupId><artifactId>gson</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.junit.jupiter</groupId><artifactId>junit-jupiter</artifactId><version>5.10.0</version><scope>test</scope></dependency>
  </dependencies>
  <build><plugins><plugin><artifactId>maven-surefire-plugin</artifactId><version>3.1.2</version></plugin></plugins></build>
</project>
`

const helloJava = `package island;

public class Hello {
    static String say() { return new com.google.gson.Gson().toJson(new int[] {7}); }
    public static void main(String[] args) { System.out.println(say()); }
}
`

const helloTest = `package island;

class HelloTest {
    @org.junit.jupiter.api.Test
    void says() { org.junit.jupiter.api.Assertions.assertEquals("[7]", Hello.say()); }
}
`

// A project with tests is built and tested inside by an unmodified Maven, and so is
// one that names a range of versions; a plugin is found by its prefix.
func TestMavenBuildsFromTheMirrorOnly(t *testing.T) {
	program := client(t, "mvn")
	client(t, "javac")
	dir := t.TempDir()
	javaProject(t, dir, "2.10.1")
	help := "org.apache.maven.plugins:maven-help-plugin:3.4.0:active-profiles" // one that Maven knows no version of
	want := ecosystem.Want{Dir: dir, Items: []any{
		map[string]any{"pom": "pom.xml", "goals": []any{"verify", help}}, "org.slf4j:slf4j-simple:2.0.9",
	}}
	eco := &maven.Ecosystem{Runner: sandbox.Exec{}}
	journey(t, eco, want, func(t *testing.T, s *island, base string) {
		home := t.TempDir()
		settings := filepath.Join(home, "settings.xml")
		write(t, settings, eco.Config("mvn", base))
		mvn := func(args ...string) string {
			return run(t, dir, append([]string{program, "-B", "-Dstyle.color=never", "-s", settings, "-C", "-Dmaven.repo.local=" + filepath.Join(home, "repository")}, args...)...)
		}
		if out := mvn("verify"); !strings.Contains(out, "Tests run: 1, Failures: 0") {
			t.Errorf("the tests did not run: %s", out)
		}
		jars := filepath.Join(dir, "target", "hello-1.0.jar") + ":" + filepath.Join(home, "repository/com/google/code/gson/gson/2.10.1/gson-2.10.1.jar")
		if out := run(t, dir, "java", "-XX:-UsePerfData", "-cp", jars, "island.Hello"); out != "[7]\n" {
			t.Errorf("it says %q", out)
		}
		if out := mvn("help:active-profiles"); !strings.Contains(out, "help:3.4.0:active-profiles") && !strings.Contains(out, "maven-help-plugin:3.4.0:active-profiles") {
			t.Errorf("the plugin was not found by its prefix: %s", out)
		}
		javaProject(t, dir, "[2,3)")
		mvn("package", "-DskipTests")
		if !s.asked("/com/google/code/gson/gson/maven-metadata.xml") || !s.asked("/gson-2.10.1.jar.sha1") {
			t.Errorf("Maven did not ask for versions or checksums: %v", s.paths)
		}
	})
}

func javaProject(t *testing.T, dir, version string) {
	t.Helper()
	for name, content := range map[string]string{
		"pom.xml": strings.Replace(pomXML, "VERSION", version, 1), "src/main/java/island/Hello.java": helloJava, "src/test/java/island/HelloTest.java": helloTest,
	} {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, at, content)
	}
}
