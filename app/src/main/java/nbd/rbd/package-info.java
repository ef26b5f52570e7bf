/** Images in a Ceph cluster, as storage, through Ceph's library librbd. */
@NullMarked
package nbd.rbd;

import org.jspecify.annotations.NullMarked;
