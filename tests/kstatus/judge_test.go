// Package kstatus puts recorded statuses to those who wait for them: kstatus's own library, the copy of it that Flux has, and
// the Lua engine of Argo CD with the health check of manifests/argocd. Each must say what a person says in verdicts.yaml.
package kstatus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	flux "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

// verdict is what a person says of a phase.
type verdict struct {
	Verdict string `json:"verdict"`
	Why     string `json:"why"`
}

// judgement is what one of those who wait says: in kstatus's words, and why.
type judgement struct {
	verdict, message string
}

// judge is one of those who wait for statuses.
type judge struct {
	name string
	say  func(object *unstructured.Unstructured) (judgement, error)
}

func judges(t *testing.T) []judge {
	check, err := os.ReadFile("../../manifests/argocd/health.lua")
	if err != nil {
		t.Fatal(err)
	}
	return []judge{
		{"kstatus", func(object *unstructured.Unstructured) (judgement, error) {
			result, err := status.Compute(object)
			if err != nil {
				return judgement{}, err
			}
			return judgement{result.Status.String(), result.Message}, nil
		}},
		{"Flux", func(object *unstructured.Unstructured) (judgement, error) {
			result, err := flux.Compute(object)
			if err != nil {
				return judgement{}, err
			}
			return judgement{result.Status.String(), result.Message}, nil
		}},
		{"Argo CD", func(object *unstructured.Unstructured) (judgement, error) {
			return argo(object, string(check))
		}},
	}
}

// expected is what a judge is to say where a person says this.
func expected(judge, person string) string {
	if judge != "Argo CD" {
		return person
	}
	return map[string]string{
		"Current":     "Healthy",
		"InProgress":  "Progressing",
		"Failed":      "Degraded",
		"Terminating": "Progressing",
	}[person]
}

func TestEveryPhaseIsJudgedAsByAPerson(t *testing.T) {
	text, err := os.ReadFile("verdicts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]map[string]verdict{}
	if err := yaml.UnmarshalStrict(text, &table); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 60 {
		t.Fatalf("there are only %d recordings", len(files))
	}
	all := judges(t)
	for _, file := range files {
		kind := filepath.Base(filepath.Dir(file))
		phase := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(kind+"/"+phase, func(t *testing.T) {
			person, judged := table[kind][phase]
			if !judged {
				t.Fatal("verdicts.yaml says nothing of it")
			}
			object := read(t, file)
			for _, judge := range all {
				said, err := judge.say(object.DeepCopy())
				if err != nil {
					t.Errorf("%s fails: %v", judge.name, err)
					continue
				}
				t.Logf("%s: %s: %s", judge.name, said.verdict, said.message)
				if want := expected(judge.name, person.Verdict); said.verdict != want {
					t.Errorf("%s says %s (%s), and a person %s: %s", judge.name, said.verdict, said.message, want, person.Why)
				}
			}
		})
	}
}

// read is the object as an API client has it.
func read(t *testing.T, file string) *unstructured.Unstructured {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(bytes); err != nil {
		t.Fatal(err)
	}
	return object
}
