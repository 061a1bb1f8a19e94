// caisson: run programs in containers, in your own process.
//
// Start here. What a host composes:
//
//   launcher.h       Launcher: starts processes inside a composition
//   process.h        ProcessSpec, Process, ExitStatus
//   scheduling.h     its place among others: nice value, processors, disks
//   hooks.h          what the host does at fixed points of a container's life
//   layer_store.h    LayerStore: images and layers on disk
//   layer_diff.h     what a container changed, as a list and as a layer
//   image_commit.h   new images from it
//   image_lease.h    holds on images across processes
//   image_archive.h  images as files for other programs
//   store_check.h    whether a store is what it should be
//   tree_copy.h      files in and out of a container
//   confined_unpacker.h  ConfinedUnpacker: layers of images nobody trusts
//   root_fs.h        RootFs: the file system that a container sees
//   mount.h          BindMount, TmpfsMount: what it mounts beside the image
//   volume.h         VolumeStore: named directories that outlive containers
//   namespace.h      Namespace: its kernel namespaces, host name, ids
//   id_range_pool.h  IdRangePool: ids of the host for its users
//   cgroup.h         CgroupParent, Cgroup: its limits, and how to end it
//   cgroup_stats.h   what a group uses
//   cgroup_events.h  being told of what happens in it
//   net_endpoint.h   NetEndpoint in a Network: its interface, address, ports
//   security.h       SecurityPolicy: capabilities, system calls, paths
//   seccomp.h        SeccompProfile: system calls as OCI writes them
//   seccomp_notify.h SeccompListener: system calls that the host answers
//   console.h        Console: a person at a container's terminal
//   bundle.h         Bundle: a container as OCI writes it, composed
//   oci_runtime.h    OciRuntime: create, start, kill, delete and exec by it
//   container.h      ContainerStore, Container: all of it, remembered and kept
//   container_spec.h, container_policies.h, container_logs.h,
//   container_events.h  what it is made from, does and tells
//   notation.h       Docker's notations for options, parsed
//   features.h       Features(): what this host offers, and why not the rest
//   error.h          what is behind an absl::Status of this library
//   unique_fd.h      UniqueFd, BorrowedFd
//
// Each header says what its classes are for, which calls block, what is left
// after a failure, and how they behave with threads. The library never changes
// the process that it is linked into: doc/design.md, "A guest".
//
// This header includes all of them; a file that uses one class may include that
// class's header alone.
#ifndef CAISSON_CAISSON_H_
#define CAISSON_CAISSON_H_

#include "caisson/bundle.h"
#include "caisson/cgroup.h"
#include "caisson/confined_unpacker.h"
#include "caisson/console.h"
#include "caisson/container.h"
#include "caisson/detached.h"
#include "caisson/error.h"
#include "caisson/features.h"
#include "caisson/hooks.h"
#include "caisson/id_range.h"
#include "caisson/id_range_pool.h"
#include "caisson/launcher.h"
#include "caisson/layer_store.h"
#include "caisson/mount.h"
#include "caisson/namespace.h"
#include "caisson/net_endpoint.h"
#include "caisson/notation.h"
#include "caisson/oci_runtime.h"
#include "caisson/process.h"
#include "caisson/root_fs.h"
#include "caisson/scheduling.h"
#include "caisson/seccomp.h"
#include "caisson/seccomp_notify.h"
#include "caisson/security.h"
#include "caisson/tree_copy.h"
#include "caisson/unique_fd.h"
#include "caisson/volume.h"

#endif  // CAISSON_CAISSON_H_
