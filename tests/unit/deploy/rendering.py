"""Renders the kustomizations of `deploy/` without kustomize: only what they use, nothing else.

Resources (files and folders), `images`, and JSON patches with a target. Whatever is not known here
is refused, so that an overlay can not say something that the tests do not see.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("local-paper", "production")
KNOWN = {"apiVersion", "kind", "resources", "images", "patches"}

Document = dict[str, Any]


class _StrictLoader(yaml.SafeLoader):
    """A key that is written twice is an error, not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"{node.start_mark}: written twice: {sorted(twice)}")
        return super().construct_mapping(node, deep)


def load_documents(path: Path) -> list[Document]:
    """The documents of a YAML file. Octal modes like 0440 are numbers, as Kubernetes reads them."""
    loaded = yaml.load_all(path.read_text(), Loader=_StrictLoader)
    return [document for document in loaded if document is not None]


def render_overlay(name: str) -> list[Document]:
    """All objects of `deploy/overlays/<name>`."""
    return render(DEPLOY / "overlays" / name)


def render(folder: Path) -> list[Document]:
    """All objects of a kustomization, its own after those of the folders it builds on."""
    (kustomization,) = load_documents(folder / "kustomization.yaml")
    unknown = kustomization.keys() - KNOWN
    if unknown:
        raise ValueError(f"{folder}: this renderer does not know {sorted(unknown)}")
    objects: list[Document] = []
    for entry in kustomization["resources"]:
        path = folder / entry
        objects += render(path.resolve()) if path.is_dir() else load_documents(path)
    for patch in kustomization.get("patches", []):
        _apply(objects, patch)
    for image in kustomization.get("images", []):
        _set_image(objects, image)
    return objects


def _apply(objects: list[Document], patch: Document) -> None:
    target = patch["target"]
    if target.keys() - {"kind", "name"} or patch.keys() - {"target", "patch"}:
        raise ValueError(f"this renderer does not know the patch {patch}")
    found = [
        one
        for one in objects
        if one["kind"] == target["kind"]
        and target.get("name", one["metadata"]["name"]) == one["metadata"]["name"]
    ]
    if not found:
        raise ValueError(f"no object for the patch of {target}")
    for one in found:
        for operation in yaml.safe_load(patch["patch"]):
            _operate(one, operation)


def _operate(one: Document, operation: Document) -> None:
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in _parts(operation["path"])]
    place: Any = one
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if not isinstance(place, dict):
        raise TypeError(f"this renderer does not patch lists: {operation}")
    if operation["op"] not in ("add", "replace"):
        raise ValueError(f"this renderer does not know {operation['op']}")
    if operation["op"] == "replace" and last not in place:
        raise ValueError(f"nothing to replace at {operation['path']}")
    place[last] = copy.deepcopy(operation["value"])


def _parts(path: str) -> list[str]:
    if not path.startswith("/"):
        raise ValueError(f"not a JSON pointer: {path}")
    return path[1:].split("/")


def _set_image(objects: list[Document], image: Document) -> None:
    if image.keys() - {"name", "newName", "newTag", "digest"}:
        raise ValueError(f"this renderer does not know {image}")
    pattern = re.compile(rf"{re.escape(image['name'])}(:[^@]+)?(@.+)?")
    for one in objects:
        for container in containers_of(one):
            match = pattern.fullmatch(container["image"])
            if match is None:
                continue
            name = image.get("newName", image["name"])
            if "digest" in image:
                container["image"] = f"{name}@{image['digest']}"
            elif "newTag" in image:
                container["image"] = f"{name}:{image['newTag']}"
            else:
                container["image"] = f"{name}{match[1] or ''}{match[2] or ''}"


def pod_template_of(one: Document) -> Document | None:
    """The pod template of a workload, else None."""
    if one["kind"] in ("Deployment", "StatefulSet", "Job"):
        template: Document = one["spec"]["template"]
        return template
    if one["kind"] == "CronJob":
        nested: Document = one["spec"]["jobTemplate"]["spec"]["template"]
        return nested
    return None


def containers_of(one: Document) -> Iterator[Document]:
    """All containers of a workload."""
    template = pod_template_of(one)
    if template is not None:
        yield from template["spec"].get("initContainers", [])
        yield from template["spec"]["containers"]


def identity(one: Document) -> str:
    """What a person calls the object."""
    metadata = one["metadata"]
    return f"{one['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
